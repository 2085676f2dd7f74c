"""Before and after: the same rows by two heads, counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ContractMismatch
from pipeline.heads import Head, TrainOptions, load_head, save_head, train
from pipeline.heads.before_after import compare, saved
from pipeline.heads.features import MemoryFeatures
from pipeline.heads.models import Layers
from pipeline.heads.rows import read_rows_of
from pipeline.table import Table
from tests.heads.tables import contract, write_arrays


def head_of(classes: tuple[str, ...], dims: list[int], D: int = 3) -> Head:
    """Return a head whose scores are some of the features."""
    weight = np.eye(D, dtype=np.float32)[dims]
    layers = ((weight, np.zeros(len(dims), np.float32)),)
    return Head("logistic", classes, contract(D), Layers(np.zeros(D, np.float32), np.ones(D, np.float32), layers))


def one_hot(places: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[places]


def test_compare__counts_by_hand() -> None:
    before, after = head_of(("apple", "orange"), [0, 1]), head_of(("apple", "banana", "orange"), [0, 2, 1])
    names = ("apple", "banana", "orange")
    #                looks like: apple, orange, banana (which the old head can only take for its first class)
    features = MemoryFeatures(one_hot([0, 1, 2, 2, 1, 2, 0]), np.asarray([0, 2, 0, 2, 2, 1, 1]))
    report = compare(before, after, features, names)
    assert report["old_classes"] == ["apple", "orange"]
    assert report["new_classes"] == ["banana"]
    assert report["dropped_classes"] == []
    assert (report["old_rows"], report["new_rows"]) == (5, 2)
    assert report["old_top1_before"] == pytest.approx(4 / 5)  # wrong: the orange that looks like a banana
    assert report["old_top1_after"] == pytest.approx(3 / 5)  # and the apple that does, too, now
    assert report["change"] == pytest.approx(-1 / 5)
    low, high = report["change_interval"]
    assert low < -1 / 5 <= high <= 0
    assert report["new_top1"] == pytest.approx(1 / 2)
    assert report["old_as_new"] == {
        "count": 2,
        "pairs": [
            {"true": "apple", "predicted": "banana", "count": 1},
            {"true": "orange", "predicted": "banana", "count": 1},
        ],
    }
    assert report["new_as_old"] == {"count": 1, "pairs": [{"true": "banana", "predicted": "apple", "count": 1}]}
    assert report["per_class"] == {
        "apple": {"support": 2, "before": 1.0, "after": 0.5},
        "banana": {"support": 2, "before": None, "after": 0.5},
        "orange": {"support": 3, "before": pytest.approx(2 / 3), "after": pytest.approx(2 / 3)},
    }


def test_compare__a_class_that_is_gone() -> None:
    before, after = head_of(("apple", "orange"), [0, 1]), head_of(("apple", "banana"), [0, 2])
    report = compare(before, after, MemoryFeatures(one_hot([0, 1]), np.asarray([0, 0])), ("apple", "banana"))
    assert report["dropped_classes"] == ["orange"]
    assert report["old_top1_before"] == pytest.approx(1 / 2)
    assert report["old_top1_after"] == 1.0
    assert report["new_top1"] is None


def clouds(count: int, classes: list[int], seed: int) -> tuple[np.ndarray, list[str]]:
    centres = np.random.default_rng(0).normal(0, 2, (5, 8))
    places = [classes[i % len(classes)] for i in range(count)]
    X = centres[places] + np.random.default_rng(seed).normal(0, 1, (count, 8))
    return X.astype(np.float32), [f"class {place}" for place in places]


def table_of(folder: Path, classes: list[int], count: int) -> str:
    X, labels = clouds(count, classes, 1)
    return write_arrays(folder, X, labels, ["test" if i // 5 % 3 == 0 else "train" for i in range(count)])


@pytest.mark.parametrize("kind", ["logistic", "ridge", "knn", "mlp"])
def test_train__from_an_older_head_reports_and_counts_what_was_kept(tmp_path: Path, kind: str) -> None:
    old = table_of(tmp_path / "old", [0, 1, 2], 300)
    train(TrainOptions(table=old, head=str(tmp_path / "before"), kind=kind, epochs=3))
    new = table_of(tmp_path / "new", [0, 1, 2, 3], 400)
    options = TrainOptions(
        table=new, head=str(tmp_path / "after"), kind=kind, epochs=3, **{"from": str(tmp_path / "before")}
    )
    record = train(options)
    report = record["before_after"]
    assert report["part"] == "test"
    assert report["new_classes"] == ["class 3"]
    before, after = load_head(str(tmp_path / "before")), load_head(str(tmp_path / "after"))
    X, labels = clouds(400, [0, 1, 2, 3], 1)
    rows = [i for i in range(400) if i // 5 % 3 == 0 and labels[i] != "class 3"]
    for head, name in ((before, "old_top1_before"), (after, "old_top1_after")):
        predicted = [head.classes[place] for place in head.scores(X[rows]).argmax(axis=1)]
        assert report[name] == pytest.approx(np.mean([p == labels[i] for p, i in zip(predicted, rows, strict=True)]))
    assert report["not_embedded_again"] is None, "that head was trained on another table"


def test_saved__by_the_manifests(tmp_path: Path) -> None:
    uri = table_of(tmp_path / "t", [0, 1, 2], 300)
    rows = read_rows_of(Table(uri))
    head = replace(head_of(("class 0", "class 1"), [0, 1]), config={"table": uri, "table_rows": 200})
    assert saved(head, rows) == {
        "images": 300,
        "images_before": 200,
        "images_new": 100,
        "not_embedded_again": 200,
        "seconds_saved": None,
    }
    (tmp_path / "t" / "manifests").mkdir()
    for name, images, reused, rate in (("a", 120, 20, 10.0), ("b", 100, 0, 50.0)):  # 10 s and 2 s for 200 images
        manifest = {"ledger": {"embedded": images, "reused": reused}, "completed_by": {"images_per_s": rate}}
        (tmp_path / "t" / "manifests" / f"{name}.json").write_text(json.dumps(manifest))
    assert saved(head, rows)["seconds_saved"] == pytest.approx(12.0)


def test_train__refuses_to_start_from_foreign_features(tmp_path: Path) -> None:
    uri = table_of(tmp_path / "t", [0, 1, 2], 60)
    save_head(head_of(("class 0", "class 1"), [0, 1]), str(tmp_path / "foreign"))
    with pytest.raises(ContractMismatch, match="foreign"):
        train(TrainOptions(table=uri, head=str(tmp_path / "h"), from_head=str(tmp_path / "foreign")))
    assert not (tmp_path / "h").exists()


def test_logistic__starts_from_an_older_head_and_lands_at_the_same_optimum(tmp_path: Path) -> None:
    uri = table_of(tmp_path / "t", [0, 1, 2, 3], 400)
    cold = train(TrainOptions(table=uri, head=str(tmp_path / "cold"), C=0.1))
    warm = train(TrainOptions(table=uri, head=str(tmp_path / "warm"), C=0.1, from_head=str(tmp_path / "cold")))
    assert warm["config"]["iterations"] < cold["config"]["iterations"] / 2
    assert warm["config"]["loss"] == pytest.approx(cold["config"]["loss"], rel=1e-4)


def test_mlp__starts_from_an_older_head(tmp_path: Path) -> None:
    old = table_of(tmp_path / "old", [0, 1, 2], 300)
    first = train(TrainOptions(table=old, head=str(tmp_path / "before"), kind="mlp", hidden=(32,), epochs=20))
    new = table_of(tmp_path / "new", [0, 1, 2, 3], 400)
    records = [
        train(TrainOptions(table=new, head=str(tmp_path / name), kind="mlp", hidden=(32,), epochs=1, from_head=start))
        for name, start in (("warm", str(tmp_path / "before")), ("cold", None))
    ]
    warm, cold = (record["config"]["history"][0]["loss"] for record in records)
    assert first["metrics"]["test"]["top1"] > 0.7
    assert warm < 0.85 * cold, "its first epoch begins where the older head was"


def test_mlp__another_width_starts_from_nothing_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = table_of(tmp_path / "t", [0, 1, 2], 60)
    train(TrainOptions(table=uri, head=str(tmp_path / "h"), kind="mlp", hidden=(8,), epochs=1))
    options = TrainOptions(
        table=uri, head=str(tmp_path / "h2"), kind="mlp", hidden=(16,), epochs=1, from_head=str(tmp_path / "h")
    )
    train(options)
    assert "Expected an mlp of --hidden 16 to start from, got a head of kind mlp with layers of [8, 3]" in caplog.text
