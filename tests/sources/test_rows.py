"""Columns of images, labels and splits, and those that travel, with their types."""

from __future__ import annotations

import decimal
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import ConfigError
from pipeline.sources.parquet import ParquetSource
from tests import samples
from tests.sources.parquet_files import (
    HF_IMAGE,
    images,
    read,
    read_all,
    refs,
    write,
)


def test_read__extra_columns_keep_their_types(tmp_path: Path) -> None:
    extras = {
        "taken": pa.array([1, None, 2**60], pa.timestamp("ns", "UTC")),
        "price": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-2.00")], pa.decimal128(9, 2)),
        "box": pa.array([[0.5], [], None], pa.list_(pa.float32())),
        "place": pa.array(
            [{"x": 1, "y": "a"}, None, {"x": None, "y": None}], pa.struct([("x", pa.int8()), ("y", pa.string())])
        ),
        "tags": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        "mask": pa.array([{"bytes": b"m", "path": None}, None, None], HF_IMAGE),
        "day": pa.array([1, 2, None], pa.date32()),
        "name": pa.array(["x", None, "x"], pa.large_string()),
        "uri": pa.array(["u", "v", None]),
    }
    kinds = pa.array(["a", None, "a"]).dictionary_encode()
    path = write(tmp_path / "a.parquet", {"image": images(0, 1, 2), **extras, "kind": kinds}, row_group_size=2)
    source = ParquetSource(str(path), image_column="image")
    expected = pa.table({**extras, "kind": kinds.cast(pa.string())}).rename_columns({"uri": "source_uri"})
    assert source.columns() == expected.schema
    rows = pa.concat_tables(read(source, ref)[1] for ref in refs(source, 2))
    assert rows.select(expected.column_names) == expected
    assert rows.schema.names[:3] == ["uri", "label", "split"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [("all", ["id", "image_path"]), ("none", []), ("id", ["id"]), ("label, id", ["source_label", "id"])],
)
def test_columns__those_that_are_asked_for_travel(tmp_path: Path, columns: str, expected: list[str]) -> None:
    image = pa.array([{"bytes": b"x", "path": "x.jpg"}], HF_IMAGE)
    path = write(tmp_path / "a.parquet", {"id": [5], "image": image, "label": ["cat"]})
    source = ParquetSource(str(path), columns=columns)
    assert source.columns().names == expected
    rows = read_all(source)
    assert rows.column_names == ["uri", "label", "split", *expected]
    assert rows["label"].to_pylist() == ["cat"]
    if columns == "all":
        assert rows["image_path"].to_pylist() == ["x.jpg"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([3, None], pa.int16()), ["3", None]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
        (pa.array(["b", None], pa.large_string()), ["b", None]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_label__is_a_string(tmp_path: Path, labels: pa.Array, expected: list[str | None]) -> None:
    path = write(tmp_path / "a.parquet", {"image": images(0, 1), "label": labels, "own": labels})
    for rule in ("auto", "column:label", "column:own"):
        rows = read_all(ParquetSource(str(path), label_from=rule))
        assert (rows["label"].to_pylist(), rows["label"].type) == (expected, pa.string())
    rows = read_all(ParquetSource(str(path), label_from="none"))
    assert rows["label"].to_pylist() == [None, None]
    assert rows["source_label"].to_pylist() == labels.to_pylist()


def test_label__numbers_of_a_hugging_face_dataset_are_class_names(tmp_path: Path) -> None:
    image = pa.array([{"bytes": samples.jpeg(seed), "path": None} for seed in range(4)], HF_IMAGE)
    columns = {"image": image, "label": [1, 0, -1, None], "fine": [0, 0, 0, 0]}
    feature = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    path = write(tmp_path / "a" / "1.parquet", columns, metadata={"label": feature, "fine": feature})
    # Another file's names are its own.
    other = {"names": ["dog", "cat"], "_type": "ClassLabel"}
    write(tmp_path / "a" / "2.parquet", columns, metadata={"label": other, "fine": other})
    rows = read_all(ParquetSource(str(tmp_path / "a")))
    assert rows["label"].to_pylist() == ["dog", "cat", None, None, "cat", "dog", None, None]
    assert rows["fine"].to_pylist() == [0] * 8
    write(tmp_path / "a" / "3.parquet", columns)
    with pytest.raises(
        ConfigError, match=r"'label' is int64 with class names in .*1.parquet, but int64 in .*3.parquet"
    ):
        refs(ParquetSource(str(tmp_path / "a")))
    columns["label"] = [2, 0, 0, 0]
    source = ParquetSource(str(write(path, columns, metadata={"label": feature})))
    with pytest.raises(ConfigError, match="Expected numbers of 2 class names in column 'label' .*got 0 to 2"):
        read_all(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_from": "parent"}, "--label-from: expected auto, column:NAME or none for this format, got 'parent'"),
        ({"split_from": "column:"}, "--split-from: expected auto, column:NAME or none"),
        (
            {"label_from": "column:kind"},
            r"--label-from: expected a column 'kind' in .*image \(binary\), label \(double\)",
        ),
        ({}, "--label-from: expected strings, integers or booleans in column 'label' .*got double"),
        ({"label_from": "none", "split_from": "column:box"}, "--split-from: expected strings.*got list<"),
        (
            {"label_from": "column:box"},
            "--label-from: expected strings.*got list<.*Convert it, or use --label-from none",
        ),
        (
            {"label_from": "none", "columns": "id, nope"},
            r"--columns: expected .*got \['nope'\].* has .*image \(binary\)",
        ),
        ({"label_from": "none", "columns": "image"}, r"--columns: expected .*other than the images', got \['image'\]"),
        ({"label_from": "none", "columns": "id,id"}, r"share the names \['id'\]"),
        ({"label_from": "none", "image_column": "nope"}, "--image-column: expected .*got 'nope'; .*label"),
        ({"label_from": "none", "image_column": "id"}, "--image-column: expected a column of image bytes .*got 'id'"),
    ],
)
def test_options__that_do_not_fit_fail_before_any_work(tmp_path: Path, options: dict[str, str], message: str) -> None:
    columns = {"image": images(0), "label": [0.5], "id": [1], "box": pa.array([[1]]), "nul": pa.nulls(1)}
    path = write(tmp_path / "a.parquet", columns)
    with pytest.raises(ConfigError, match=message):
        ParquetSource(str(path), **options).columns()


def test_image_column__is_the_only_one_that_can_be(tmp_path: Path) -> None:
    image = images(0)
    for kind in (pa.large_binary(), HF_IMAGE, pa.struct([("path", pa.string()), ("bytes", pa.large_binary())])):
        values = [samples.jpeg(0)] if kind == pa.large_binary() else [{"bytes": samples.jpeg(0), "path": "a"}]
        path = write(tmp_path / "a.parquet", {"x": pa.array(values, kind), "s": pa.array([{"bytes": 1}])})
        source = ParquetSource(str(path))
        (ref,) = refs(source)
        assert read(source, ref)[0] == [samples.jpeg(0)]
    path = write(tmp_path / "b.parquet", {"image": image, "mask": image})
    with pytest.raises(ConfigError, match=r"--image-column: .*found 'image', 'mask'"):
        ParquetSource(str(path)).columns()
    assert ParquetSource(str(path), image_column="mask").columns() == pa.schema([("image", pa.binary())])
    path = write(tmp_path / "c.parquet", {"uri": ["a.jpg"]})
    with pytest.raises(ConfigError, match=r"--image-column: .*found none; .*uri \(string\).*--format manifest"):
        ParquetSource(str(path)).columns()


def test_refs__files_must_agree(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": images(0), "id": [1], "note": ["x"]})
    other = tmp_path / "b.parquet"
    source = ParquetSource(str(tmp_path))
    write(other, {"id": [2], "note": ["y"]})
    with pytest.raises(
        ConfigError, match=r"'image' is binary in .*a.parquet, but .*b.parquet has no such column, only id"
    ):
        refs(source)
    write(other, {"image": images(1), "id": pa.array([2], pa.int32()), "note": ["y"]})
    with pytest.raises(ConfigError, match=r"'id' is int64 in .*a.parquet, but int32 in .*b.parquet"):
        refs(source)
    assert len(refs(ParquetSource(str(tmp_path), columns="note"))) == 2  # columns that don't travel may differ
    # A column without any value has no type of its own; one that dictionaries encode is of the values' type.
    write(other, {"note": pa.array(["y"]).dictionary_encode(), "id": pa.nulls(1), "image": images(1)})
    rows = read_all(source)
    assert rows["id"].to_pylist() == [1, None]
    assert rows["note"].to_pylist() == ["x", "y"]
    assert rows["id"].type == pa.int64()
