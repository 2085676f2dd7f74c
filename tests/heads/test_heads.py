"""Heads: as good as scikit-learn's, repeatable, saved without pickle, honest in their metrics."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss, top_k_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.contract import FeatureContract
from pipeline.errors import ConfigError, ContractMismatch, TableError
from pipeline.heads import (
    PREDICTION_SCHEMA,
    EvaluateOptions,
    Head,
    TrainOptions,
    classify,
    evaluate,
    load_head,
    save_head,
    train,
)
from pipeline.heads.artefact import standardisation
from pipeline.heads.data import LabelledFeatures
from pipeline.heads.metrics import evaluate_rows
from tests.heads.test_data import CONTRACT, write_table

CLASSES = tuple("abcdefg")


def blobs(count: int, seed: int, classes: tuple[str, ...] = CLASSES) -> list[tuple[str, str, list[float]]]:
    """Return overlapping clouds, one a class: (content, label, embedding)."""
    random = np.random.default_rng(seed)
    centres = {name: np.random.default_rng(ord(name)).normal(0, 2, 2) for name in CLASSES}
    names = [classes[i % len(classes)] for i in range(count)]
    return [(f"{seed}-{i}", name, list(centres[name] + random.normal(0, 0.7, 2))) for i, name in enumerate(names)]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    splits = {"train": blobs(280, 1), "validation": blobs(140, 2), "test": blobs(210, 3)}
    values = [(sha, label, split, x) for split, rows in splits.items() for sha, label, x in rows]
    return write_table(tmp_path_factory.mktemp("heads") / "table", values)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_train__evaluate_repeats_the_test_numbers_exactly(table: str, tmp_path: Path, kind: str) -> None:
    record = train(TrainOptions(table=table, head=str(tmp_path), kind=kind))
    again = evaluate(EvaluateOptions(table=table, head=str(tmp_path)))
    assert again["metrics"] == record["metrics"]["test"]
    assert again["head_sha256"] == record["head_sha256"]
    assert record["metrics"]["test"]["num_rows"] == 210
    assert sorted(record["metrics"]) == ["test", "train", "validation"]


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_train__the_same_seed_gives_the_same_head(table: str, tmp_path: Path, kind: str) -> None:
    records = [
        train(TrainOptions(table=table, head=str(tmp_path / str(i)), kind=kind, seed=s))
        for i, s in enumerate((0, 0, 1))
    ]
    assert records[0]["head_sha256"] == records[1]["head_sha256"]
    assert (records[0]["head_sha256"] == records[2]["head_sha256"]) == (kind == "logistic")


@pytest.mark.parametrize("num_classes", [2, 7])
def test_train__logistic_is_scikit_learns(tmp_path: Path, num_classes: int) -> None:
    parts = {
        split: blobs(210, seed, CLASSES[:num_classes]) for seed, split in enumerate(("train", "validation", "test"))
    }
    values = [(sha, label, split, x) for split, rows in parts.items() for sha, label, x in rows]
    uri = write_table(tmp_path / "t", values)  # type: ignore[arg-type]
    record = train(TrainOptions(table=uri, head=str(tmp_path / "h")))
    X, y = ([row[i] for row in parts["train"]] for i in (2, 1))
    X_test, y_test = ([row[i] for row in parts["test"]] for i in (2, 1))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=record["config"]["C"], max_iter=1000)).fit(X, y)
    probabilities = model.predict_proba(X_test)
    np.testing.assert_allclose(
        load_head(str(tmp_path / "h")).probabilities(np.asarray(X_test, np.float32)),
        probabilities,
        atol=5e-3,  # L-BFGS stops a little apart in float32
    )
    metrics = record["metrics"]["test"]
    assert metrics["top1"] == pytest.approx(model.score(X_test, y_test))
    assert metrics["macro_f1"] == pytest.approx(f1_score(y_test, model.predict(X_test), average="macro"))
    assert metrics["log_loss"] == pytest.approx(log_loss(y_test, probabilities), rel=1e-2)
    if num_classes > 5:
        assert metrics["top5"] == pytest.approx(top_k_accuracy_score(y_test, probabilities, k=5))


def test_train__logistic_chooses_C_on_validation(table: str, tmp_path: Path) -> None:
    config = train(TrainOptions(table=table, head=str(tmp_path)))["config"]
    best = max(entry["validation_top1"] for entry in config["sweep"])
    assert config["C"] == min(entry["C"] for entry in config["sweep"] if entry["validation_top1"] == best)


def test_train__mlp_keeps_the_best_epoch(table: str, tmp_path: Path) -> None:
    options = TrainOptions(table=table, head=str(tmp_path), kind="mlp", hidden=(16, 8), patience=6, learning_rate=0.01)
    record = train(options)
    config = record["config"]
    chosen = config["history"][config["best_epoch"] - 1]
    assert chosen["validation_top1"] == max(entry["validation_top1"] for entry in config["history"])
    assert record["metrics"]["validation"]["top1"] == pytest.approx(chosen["validation_top1"])
    assert [weight.shape for weight, _ in load_head(str(tmp_path)).layers] == [(16, 2), (8, 16), (7, 8)]
    assert record["metrics"]["test"]["top1"] > 0.6


def test_train__carves_validation_where_there_is_none(tmp_path: Path) -> None:
    values = [(sha, label, None, x) for sha, label, x in blobs(140, 1)]
    record = train(
        TrainOptions(table=write_table(tmp_path / "t", values), head=str(tmp_path / "h"), validation_fraction=0.25)
    )
    assert record["config"]["validation_from_train"]
    assert record["metrics"]["validation"]["num_rows"] == 35
    assert record["metrics"]["train"]["num_rows"] == 105
    assert "test" not in record["metrics"]


def test_train__refuses_what_can_not_be_learned(tmp_path: Path) -> None:
    one = write_table(tmp_path / "one", [("1", "a", "train", [1.0, 2.0]), ("2", "a", "train", [1.0, 2.0])])
    with pytest.raises(ConfigError, match="at least 2 classes.*got 1: a"):
        train(TrainOptions(table=one, head=str(tmp_path / "h")))
    test_only = write_table(tmp_path / "test", [("1", "a", "test", [1.0, 2.0])])
    with pytest.raises(ConfigError, match="split train in .*, got test"):
        train(TrainOptions(table=test_only, head=str(tmp_path / "h")))
    assert not (tmp_path / "h").exists()


def test_evaluate__refuses_foreign_features_and_missing_splits(table: str, tmp_path: Path) -> None:
    train(TrainOptions(table=table, head=str(tmp_path / "h")))
    with pytest.raises(ConfigError, match="split holdout"):
        evaluate(EvaluateOptions(table=table, head=str(tmp_path / "h"), split="holdout"))
    head = load_head(str(tmp_path / "h"))
    save_head(replace(head, contract=replace(CONTRACT, weights_sha256="ff")), str(tmp_path / "foreign"))
    with pytest.raises(ContractMismatch, match="weights_sha256"):
        evaluate(EvaluateOptions(table=table, head=str(tmp_path / "foreign")))


def linear_head(classes: tuple[str, ...] = ("a", "b")) -> Head:
    """Return a head whose logits are the features."""
    layers = ((np.eye(len(classes), dtype=np.float32), np.zeros(len(classes), np.float32)),)
    D = len(classes)
    contract = FeatureContract("pixels", "00", {"name": "p"}, D, "none")
    return Head("logistic", classes, contract, np.zeros(D, np.float32), np.ones(D, np.float32), layers)


def test_evaluate_rows__by_hand() -> None:
    X = np.asarray([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    labels = np.asarray(["a", "b", "b", "b"], object)
    metrics = evaluate_rows(linear_head(), LabelledFeatures(X, labels, labels))
    assert metrics["top1"] == 0.75
    assert metrics["top5"] == 1.0
    assert metrics["per_class"]["a"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert metrics["per_class"]["b"] == {"precision": 1.0, "recall": pytest.approx(2 / 3), "f1": 0.8, "support": 3}
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert metrics["confusion"] == {"classes": ["a", "b"], "counts": [[1, 0], [1, 2]]}
    p = 1 / (1 + np.exp(-1))
    assert metrics["log_loss"] == pytest.approx(-(3 * np.log(p) + np.log(1 - p)) / 4)


def test_evaluate_rows__a_class_unknown_to_the_head_counts_as_wrong() -> None:
    X = np.asarray([[1, 0], [1, 0]], np.float32)
    metrics = evaluate_rows(
        linear_head(), LabelledFeatures(X, np.asarray(["a", "z"], object), np.asarray(["1", "2"], object))
    )
    assert metrics["top1"] == metrics["top5"] == 0.5
    assert metrics["num_unknown_class"] == 1
    assert metrics["confusion"]["classes"] == ["a", "b", "z"]
    assert np.isfinite(metrics["log_loss"])


def test_classify__gives_sorted_top_5() -> None:
    head = linear_head(CLASSES)
    X = np.asarray([[0, 1, 2, 3, 4, 5, 6]], np.float32)
    rows = pa.table(
        {
            "uri": ["u"],
            "sha256": ["s"],
            "label": ["g"],
            "split": pa.array([None], pa.string()),
            "embedding": pa.array(X.tolist(), pa.list_(pa.float32(), 7)),
        }
    )
    result = classify(rows, head)
    assert result.schema == PREDICTION_SCHEMA
    (row,) = result.to_pylist()
    assert row["top5_labels"] == ["g", "f", "e", "d", "c"]
    assert row["predicted_label"] == "g"
    assert row["probability"] == row["top5_probabilities"][0] == pytest.approx(np.exp(6) / np.exp(X).sum(), rel=1e-5)


def test_standardisation__a_constant_feature_is_left_alone() -> None:
    mean, scale = standardisation(np.asarray([[1, 5, 1e6], [3, 5, 1e6 + 0.01]], np.float32))
    np.testing.assert_allclose(mean, [2, 5, 1e6])
    np.testing.assert_allclose(scale, [1, 1, 1])


def test_save_head__holds_no_pickle_and_finds_mixed_files(tmp_path: Path) -> None:
    save_head(linear_head(), str(tmp_path / "a"))
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["head.json", "head.safetensors"]
    loaded = load_head(str(tmp_path / "a"))
    assert loaded.sha256 == linear_head().sha256
    assert loaded.classes == ("a", "b")
    other = linear_head(("a", "b", "c"))
    save_head(other, str(tmp_path / "b"))
    (tmp_path / "b" / "head.safetensors").replace(tmp_path / "a" / "head.safetensors")
    with pytest.raises(TableError, match="not the file that head.json describes"):
        load_head(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 9}, "head format 1"),
        ({"kind": None, "classes": None}, "can't be read"),
        ({"contract": {}}, "feature contract"),
    ],
)
def test_load_head__says_what_is_wrong(tmp_path: Path, change: dict[str, object], message: str) -> None:
    save_head(linear_head(), str(tmp_path))
    path = tmp_path / "head.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in {**description, **change}.items() if value is not None}))
    with pytest.raises(TableError, match=message):
        load_head(str(tmp_path))
    with pytest.raises(TableError, match=r"no head\.json"):
        load_head(str(tmp_path / "nowhere"))
