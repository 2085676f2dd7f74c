"""The protocol: scikit-learn's numbers on the same steps, and the right rows for each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from pipeline.errors import ConfigError
from pipeline.heads.rows import Rows, read_rows_of
from pipeline.probe.protocol import divide, linear_probe
from pipeline.probe.suite import Splits
from pipeline.table import open_table
from tests.heads.tables import write_arrays

MEMORY = 2**28
SPLITS = Splits(validation="validation")


def table(folder: Path, X: NDArray[np.float32], labels: list[str], splits: list[str]) -> Rows:
    """Write a table whose images all differ, and read its rows."""
    return read_rows_of(open_table(write_arrays(folder, X, labels, splits)))


def clouds(count: int, num_classes: int, dim: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return overlapping clouds of rare and frequent classes, whose features have different scales."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(0, 0.8, (num_classes, dim))
    y = random.choice(num_classes, count, p=np.arange(1, num_classes + 1) / np.arange(1, num_classes + 1).sum())
    X = (centres[y] + random.normal(0, 1, (count, dim))) * np.logspace(-1, 1, dim)
    return X.astype(np.float32), y


def test_linear_probe__gives_scikit_learns_numbers(tmp_path: Path) -> None:
    sizes = {"train": 400, "validation": 200, "test": 1000}
    parts = {name: clouds(size, 5, 20, seed) for seed, (name, size) in enumerate(sizes.items())}
    X = np.concatenate([x for x, _ in parts.values()])
    labels = [f"c{label}" for _, y in parts.values() for label in y]
    splits = [name for name, (_, y) in parts.items() for _ in y]
    rows = table(tmp_path / "t", X, labels, splits)
    with threadpool_limits(1):  # products of small matrices; threads would wait for each other
        _, result = linear_probe(rows, SPLITS, MEMORY)
        compare(result, parts)


def compare(result: dict[str, Any], parts: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]]) -> None:
    """Hold a probe's result against the same steps by scikit-learn."""
    scaler = StandardScaler().fit(parts["train"][0])
    train, validation = (scaler.transform(parts[name][0]) for name in ("train", "validation"))
    scores = {}
    for entry in result["sweep"]:
        model = LogisticRegression(C=entry["C"], max_iter=1000, tol=1e-6).fit(train, parts["train"][1])
        scores[entry["C"]] = model.score(validation, parts["validation"][1])
        if entry["C"] <= 1:  # beyond, neither has quite converged after so many steps
            assert entry["validation_top1"] == pytest.approx(scores[entry["C"]], abs=0.005)
    assert len(scores) >= 10
    assert scores[result["C"]] == pytest.approx(max(scores.values()), abs=0.005)
    both = [np.concatenate([parts["train"][i], parts["validation"][i]]) for i in range(2)]
    scaler = StandardScaler().fit(both[0])
    final = LogisticRegression(C=result["C"], max_iter=1000).fit(scaler.transform(both[0]), both[1])
    predicted = final.predict(scaler.transform(parts["test"][0]))
    test = result["test"]
    assert test["top1"] == pytest.approx((predicted == parts["test"][1]).mean(), abs=0.005)
    assert test["mean_per_class"] == pytest.approx(balanced_accuracy_score(parts["test"][1], predicted), abs=0.005)
    assert test["mean_per_class"] != pytest.approx(test["top1"], abs=0.005)
    assert test["intervals"]["top1"][0] < test["top1"] < test["intervals"]["top1"][1]
    assert result["num_rows"] == {name: len(y) for name, (_, y) in parts.items()}


def test_linear_probe__the_final_fit_learns_from_validation_too(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = 20 * ["a"] + 20 * ["b"] + 20 * ["c"] + 30 * ["c", "a"]
    splits = 40 * ["train"] + 20 * ["validation"] + 60 * ["test"]
    centres = {"a": 0.0, "b": 5.0, "c": 10.0}
    X = np.asarray([[centres[label], 0] for label in labels]) + random.normal(0, 0.1, (120, 2))
    head, result = linear_probe(table(tmp_path / "t", X, labels, splits), SPLITS, MEMORY)
    assert head.classes == ("a", "b", "c")
    assert result["num_classes"] == 3
    assert (result["test"]["top1"], result["test"]["num_unknown_class"]) == (1.0, 0)
    assert head.metrics["test"] == result["test"]


def test_divide__holds_out_what_has_no_split(tmp_path: Path) -> None:
    X, y = clouds(300, 3, 4, 0)
    rows = table(tmp_path / "t", X, [f"c{label}" for label in y], 200 * ["train"] + 100 * ["extra"])
    division = divide(rows, Splits(test=None, validation_fraction=0.25, test_fraction=0.5), seed=0)
    assert set(division.held_out) == {"validation", "test"}
    counts = {name: int(mask.sum()) for name, mask in division.masks.items()}
    assert sum(counts.values()) == 200  # nothing of the split that nobody asked for
    assert np.stack(list(division.masks.values())).sum(axis=0).max() == 1
    assert counts["test"] == pytest.approx(100, abs=2)
    assert counts["validation"] == pytest.approx(25, abs=2)
    again = divide(rows, Splits(test=None, validation_fraction=0.25, test_fraction=0.5), seed=1)
    assert (again.masks["test"] != division.masks["test"]).any()


@pytest.mark.parametrize(
    ("splits", "labels", "said"),
    [
        (Splits(test="held"), ["a", "a", "b", "b"], "Expected labelled images of the split held in .*, got the splits"),
        (Splits(train="test", test="train"), ["a", "b", "a", "b"], "Expected to hold validation out of the split test"),
        (Splits(), ["a", "a", "b", "b"], "Expected at least 2 classes among the training images of .*, got 1: a"),
    ],
)
def test_linear_probe__says_what_is_missing(tmp_path: Path, splits: Splits, labels: list[str], said: str) -> None:
    rows = table(tmp_path / "t", np.eye(4, dtype=np.float32), labels, ["train", "train", "test", "test"])
    with pytest.raises(ConfigError, match=said):
        linear_probe(rows, splits, MEMORY)
