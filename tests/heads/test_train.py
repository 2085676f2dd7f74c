"""Training and evaluating on tables: repeatable, on the right rows, and the same from files as from memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss, top_k_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.errors import ConfigError, ContractMismatch
from pipeline.heads import EvaluateOptions, TrainOptions, evaluate, load_head, save_head, train
from pipeline.heads.kinds import HeadKind
from pipeline.heads.models import Layers
from tests.heads.clouds import clouds
from tests.heads.tables import contract, write_arrays, write_table

KINDS = get_args(HeadKind)
NAMES = "abcdefg"
SPLITS = (("train", 1), ("validation", 2), ("test", 3))


def write_clouds(
    uri: Path, counts: tuple[int, int, int], num_classes: int = 7, dim: int = 6, **more: Any
) -> tuple[str, dict[str, tuple[np.ndarray, list[str]]]]:
    """Write a table of clouds with all three splits, and return it with each split's points and labels."""
    parts = {}
    scale = clouds(1000, num_classes, dim, 1)[0].std(axis=0)
    for (split, seed), count in zip(SPLITS, counts, strict=True):
        X, y = clouds(count, num_classes, dim, seed, spread=0.8)
        parts[split] = X / scale, [NAMES[i] for i in y]
    X = np.concatenate([X for X, _ in parts.values()])
    labels = [label for _, names in parts.values() for label in names]
    splits = [split for split, (_, names) in parts.items() for _ in names]
    order = np.random.default_rng(0).permutation(len(X))
    return write_arrays(uri, X[order], [labels[i] for i in order], [splits[i] for i in order], **more), parts


def options(table: str, head: Path, kind: str = "logistic", **more: Any) -> TrainOptions:
    small = {"hidden": (32, 16), "epochs": 12, "learning_rate": 0.01, "batch_size": 32} if kind == "mlp" else {}
    return TrainOptions(table=table, head=str(head), kind=kind, device="cpu", **{**small, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_clouds(tmp_path_factory.mktemp("heads") / "table", (280, 140, 210))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_train__evaluate_repeats_the_test_numbers_exactly(table: str, tmp_path: Path, kind: str) -> None:
    record = train(options(table, tmp_path, kind))
    assert record["kind"] == kind
    assert record["classes"] == list(NAMES)
    assert list(record["metrics"]) == ["train", "validation", "test"]
    assert [metrics["num_rows"] for metrics in record["metrics"].values()] == [280, 140, 210]
    for split in ("train", "validation", "test"):
        again = evaluate(EvaluateOptions(table=table, head=str(tmp_path), split=split))
        assert again["metrics"] == record["metrics"][split]
        assert again["head_sha256"] == record["head_sha256"]
    head = load_head(str(tmp_path))
    assert (head.metrics, head.config) == (record["metrics"], record["config"])
    assert record["metrics"]["test"]["top1"] > 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_train__the_same_seed_gives_the_same_head(table: str, tmp_path: Path, kind: str) -> None:
    shas = [train(options(table, tmp_path / str(i), kind, seed=s))["head_sha256"] for i, s in enumerate((0, 0, 1))]
    assert shas[0] == shas[1]
    assert (shas[0] == shas[2]) == (kind != "mlp")  # with a validation split nothing else is random


@pytest.mark.parametrize("num_classes", [2, 7])
def test_train__logistic_is_scikit_learns(tmp_path: Path, num_classes: int) -> None:
    uri, parts = write_clouds(tmp_path / "t", (700, 210, 700), num_classes)
    record = train(options(uri, tmp_path / "h"))
    C = record["config"]["C"] * (2 if num_classes == 2 else 1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000, tol=1e-6)).fit(*parts["train"])
    X, y = parts["test"]
    probabilities = model.predict_proba(X)
    head = load_head(str(tmp_path / "h"))
    np.testing.assert_allclose(replace(head, temperature=1.0).probabilities(X), probabilities, atol=1e-2)
    metrics = record["metrics"]["test"]
    assert metrics["top1"] == pytest.approx(model.score(X, y), abs=1.5e-3)
    assert metrics["macro_f1"] == pytest.approx(f1_score(y, model.predict(X), average="macro"), abs=2e-3)
    if num_classes > 5:
        assert metrics["top5"] == pytest.approx(top_k_accuracy_score(y, probabilities, k=5), abs=1.5e-3)
    assert metrics["log_loss"] < log_loss(y, probabilities) + 0.01


def test_train__holds_validation_and_test_out_by_content(tmp_path: Path) -> None:
    X, y = clouds(140, 7, 6, seed=1)
    X /= X.std(axis=0)
    labels, contents = [NAMES[i] for i in y], [str(i) for i in range(140)]
    twice = [*contents, *contents], [*labels, *labels]  # each image is there twice
    uri = write_arrays(tmp_path / "t", np.concatenate([X, X]), twice[1], contents=twice[0], rows_per_file=50)
    record = train(options(uri, tmp_path / "h", validation_fraction=0.25, test_fraction=0.2))
    assert record["config"]["held_out_of_train"] == ["test", "validation"]
    rows = {name: metrics["num_rows"] for name, metrics in record["metrics"].items()}
    assert rows == {"train": 168, "validation": 56, "test": 56}
    record = train(options(uri, tmp_path / "h", "knn", k=1, validation_fraction=0.25))
    assert record["config"]["held_out_of_train"] == ["validation"]
    assert list(record["metrics"]) == ["train", "validation"]
    assert record["metrics"]["train"]["top1"] == 1
    assert record["metrics"]["validation"]["top1"] < 1  # its twin isn't in train


def test_train__a_class_only_in_test_is_unknown(tmp_path: Path) -> None:
    values = [(str(i), "ab"[i % 2], ("train", "validation")[i // 20], [i % 2 + i / 1000, 0.0]) for i in range(40)]
    values += [("x", "a", "test", [0.0, 0.0]), ("y", "b", "test", [1.0, 0.0]), ("z", "0", "test", [1.0, 0.0])]
    values += [("u", None, "test", [1.0, 0.0]), ("v", None, None, [1.0, 0.0])]
    uri = write_table(tmp_path / "t", values)  # type: ignore[arg-type]
    record = train(options(uri, tmp_path / "h"))
    assert record["classes"] == ["a", "b"]
    assert record["num_unlabelled"] == 2
    metrics = record["metrics"]["test"]
    assert (metrics["num_rows"], metrics["num_unknown_class"]) == (3, 1)
    assert metrics["top1"] == pytest.approx(2 / 3)
    assert metrics["confusion"]["classes"] == ["a", "b", "0"]
    assert evaluate(EvaluateOptions(table=uri, head=str(tmp_path / "h")))["metrics"] == metrics


def test_train__refuses_what_can_not_be_learned(tmp_path: Path) -> None:
    one = write_table(tmp_path / "one", [("1", "a", "train", [1.0, 2.0]), ("2", "a", "train", [1.0, 2.0])])
    with pytest.raises(ConfigError, match="at least 2 classes.*got 1: a"):
        train(options(one, tmp_path / "h"))
    test_only = write_table(tmp_path / "test", [("1", "a", "test", [1.0, 2.0])])
    with pytest.raises(ConfigError, match="split train in .*, got test"):
        train(options(test_only, tmp_path / "h"))
    assert not (tmp_path / "h").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_train__with_two_rows(tmp_path: Path, kind: str) -> None:
    """One of each class: nothing is left for validation."""
    uri = write_table(tmp_path / "t", [("1", "a", None, [1.0, 2.0]), ("2", "b", None, [3.0, 2.0])])
    record = train(options(uri, tmp_path / "h", kind, epochs=30, learning_rate=0.01))
    assert list(record["metrics"]) == ["train"]
    assert record["metrics"]["train"]["top1"] == 1


def test_evaluate__refuses_foreign_features_and_missing_splits(table: str, tmp_path: Path) -> None:
    train(options(table, tmp_path / "h", "ridge"))
    with pytest.raises(ConfigError, match="split holdout in .*, got test, train, validation"):
        evaluate(EvaluateOptions(table=table, head=str(tmp_path / "h"), split="holdout"))
    head = load_head(str(tmp_path / "h"))
    save_head(replace(head, contract=replace(contract(6), weights_sha256="ff")), str(tmp_path / "foreign"))
    with pytest.raises(ContractMismatch, match="weights_sha256"):
        evaluate(EvaluateOptions(table=table, head=str(tmp_path / "foreign")))


def test_train__mlp_keeps_the_best_epoch(table: str, tmp_path: Path) -> None:
    config = (record := train(options(table, tmp_path, "mlp", hidden=(16, 8), patience=4, learning_rate=0.01)))[
        "config"
    ]
    chosen = config["history"][config["best_epoch"] - 1]
    assert chosen["validation_top1"] == max(entry["validation_top1"] for entry in config["history"])
    assert record["metrics"]["validation"]["top1"] == pytest.approx(chosen["validation_top1"])
    model = load_head(str(tmp_path)).model
    assert isinstance(model, Layers)
    assert [weight.shape for weight, _ in model.layers] == [(16, 6), (8, 16), (7, 8)]


@pytest.fixture(scope="module", params=["float32", "float16"])
def scattered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A table of many files, of which two are empty."""
    files = [0, *[90] * 20, 0, *[310] * 6, 140]
    folder = tmp_path_factory.mktemp("scattered")
    return write_clouds(folder / "t", (2400, 600, 800), dim=16, rows_per_file=files, dtype=request.param)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_train__streamed_is_as_good_as_in_memory(scattered: str, tmp_path: Path, kind: str) -> None:
    more = {"C": 0.1} if kind == "logistic" else {}
    whole = train(options(scattered, tmp_path / "a", kind, memory_gb=1, **more))
    parts = train(options(scattered, tmp_path / "b", kind, memory_gb=1e-4, **more))
    assert (whole["config"]["streamed"], parts["config"]["streamed"]) == (False, True)
    heads = [load_head(str(tmp_path / name)) for name in "ab"]
    for split in ("train", "validation", "test"):
        one, other = whole["metrics"][split], parts["metrics"][split]
        assert one["num_rows"] == other["num_rows"]
        # Other batches, and with them another network, are within what two seeds differ by.
        assert abs(one["top1"] - other["top1"]) <= (0.02 if kind == "mlp" else 0.003)
    X, _ = clouds(100, 7, 16, seed=1)
    if kind != "mlp":
        scores = heads[0].scores(X)
        np.testing.assert_allclose(heads[1].scores(X), scores, atol=0.02 * np.abs(scores).max())


def test_train__streamed_logistic_chooses_C_on_a_sample(scattered: str, tmp_path: Path) -> None:
    whole = train(options(scattered, tmp_path / "a", memory_gb=1))
    parts = train(options(scattered, tmp_path / "b", memory_gb=2e-4))
    assert "sample_rows" not in whole["config"]
    assert 100 < parts["config"]["sample_rows"] < 2400
    best = max(entry["validation_top1"] for entry in parts["config"]["sweep"])
    ties = [entry["C"] for entry in parts["config"]["sweep"] if entry["validation_top1"] == best]
    assert parts["config"]["C"] == min(ties)
    assert abs(whole["metrics"]["test"]["top1"] - parts["metrics"]["test"]["top1"]) < 0.02


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_train__a_device_that_is_not_there_is_a_clear_error(table: str, tmp_path: Path) -> None:
    asked = options(table, tmp_path, "mlp").model_copy(update={"device": "cuda"})
    with pytest.raises(ConfigError, match="finds no CUDA device here. Use --device cpu"):
        train(asked)
