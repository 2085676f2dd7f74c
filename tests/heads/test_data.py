"""Splits: by content, stratified, never straddled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.contract import FeatureContract
from pipeline.errors import TableError
from pipeline.heads.data import LabelledFeatures, carve_validation, read_features
from pipeline.table import Table, TableInfo, Unit, commit_unit, create_table, data_schema
from pipeline.table.schema import REJECT_SCHEMA

CONTRACT = FeatureContract("pixels", "00", {"name": "p"}, 2, "none")


def write_table(
    uri: Path, values: list[tuple[str, str | None, str | None, list[float]]], dtype: str = "float32"
) -> str:
    """Write a table of (content, label, split, embedding)."""
    table = Table(str(uri))
    create_table(table, TableInfo("embeddings", CONTRACT, dtype))  # type: ignore[arg-type]
    schema = data_schema(dtype, 2)  # type: ignore[arg-type]
    kind = np.float16 if dtype == "float16" else np.float32
    rows = pa.Table.from_pydict(
        {
            "uri": [str(i) for i in range(len(values))],
            "sha256": [content for content, *_ in values],
            "label": [label for _, label, *_ in values],
            "split": [split for _, _, split, _ in values],
            "width": [1] * len(values),
            "height": [1] * len(values),
            "embedding": [list(np.asarray(embedding, kind)) for *_, embedding in values],
        },
        schema=schema,
    )
    commit_unit(table, Unit("plan", 0, len(values)), rows, REJECT_SCHEMA.empty_table(), {})
    return str(uri)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_read_features__by_split(tmp_path: Path, dtype: str) -> None:
    values = [
        ("1", "x", "train", [1.0, 2.0]),
        ("2", "y", None, [3.0, 4.0]),
        ("3", "x", "test", [5.0, 6.0]),
        ("4", None, "test", [7.0, 8.0]),
    ]
    features = read_features(write_table(tmp_path, values, dtype))
    assert features.num_unlabelled == 1
    assert sorted(features.splits) == ["test", "train"]
    np.testing.assert_array_equal(features.splits["train"].X, np.asarray([[1, 2], [3, 4]], np.float32))
    assert features.splits["train"].X.dtype == np.float32
    assert list(features.splits["train"].labels) == ["x", "y"]
    assert list(features.splits["test"].sha256) == ["3"]


def test_read_features__refuses_a_table_without_labels_or_rows(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="none of its 1 rows has one"):
        read_features(write_table(tmp_path / "a", [("1", None, None, [1.0, 2.0])]))
    with pytest.raises(TableError, match="has no rows yet"):
        read_features(write_table(tmp_path / "b", []))
    with pytest.raises(TableError, match="found no table"):
        read_features(str(tmp_path / "c"))


def features(contents: list[str], labels: list[str]) -> LabelledFeatures:
    X = np.arange(len(labels), dtype=np.float32)[:, None]
    return LabelledFeatures(X, np.asarray(labels, object), np.asarray(contents, object))


def test_carve_validation__is_stratified_and_exact() -> None:
    rows = features([str(i) for i in range(110)], ["a"] * 100 + ["b"] * 10)
    train, validation = carve_validation(rows, 0.2, seed=0)
    assert (list(validation.labels).count("a"), list(validation.labels).count("b")) == (20, 2)
    assert sorted([*train.sha256, *validation.sha256]) == sorted(rows.sha256)


def test_carve_validation__identical_images_stay_together() -> None:
    contents = [str(i // 4) for i in range(80)]
    labels = ["a" if i % 2 else "b" for i in range(80)]  # even across classes
    train, validation = carve_validation(features(contents, labels), 0.3, seed=1)
    assert len(validation)
    assert not set(train.sha256) & set(validation.sha256)


def test_carve_validation__does_not_depend_on_order_or_other_classes() -> None:
    contents, labels = [str(i) for i in range(40)], ["a"] * 20 + ["b"] * 20
    _, whole = carve_validation(features(contents, labels), 0.25, seed=3)
    _, backwards = carve_validation(features(contents[::-1], labels[::-1]), 0.25, seed=3)
    _, alone = carve_validation(features(contents[:20], labels[:20]), 0.25, seed=3)
    _, other_seed = carve_validation(features(contents, labels), 0.25, seed=4)
    assert set(whole.sha256) == set(backwards.sha256)
    assert set(alone.sha256) == {sha for sha, label in zip(whole.sha256, whole.labels, strict=True) if label == "a"}
    assert set(whole.sha256) != set(other_seed.sha256)


def test_carve_validation__a_class_of_one_stays_in_train() -> None:
    train, validation = carve_validation(features(["1", "2", "3"], ["a", "b", "b"]), 0.5, seed=0)
    assert "a" in set(train.labels)
    assert list(validation.labels) == ["b"]
