"""Metrics: as scikit-learn has them, honest about unknown classes, with intervals that hold what they promise."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (
    balanced_accuracy_score,
    classification_report,
    confusion_matrix,
    f1_score,
    log_loss,
    top_k_accuracy_score,
)

from pipeline.heads.features import MemoryFeatures
from pipeline.heads.metrics import Outcomes, observe, summarise
from tests.heads.linear import linear_head

HEADLINE = ("top1", "top5", "mean_per_class", "macro_f1", "log_loss", "ece")


def measured(X: list[list[float]], y: list[int], others: tuple[str, ...] = (), classes: str = "ab") -> dict[str, Any]:
    """Measure a head whose scores are X."""
    head = linear_head(tuple(classes))
    features = MemoryFeatures(np.asarray(X, np.float32), np.asarray(y))
    return summarise(observe(head, features, (*head.classes, *others)))


def scored(count: int, num_classes: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    y = random.integers(0, num_classes, count)
    if num_classes > 2:
        y[y == num_classes - 1] = 0  # of the last class there is no row
    return (random.normal(0, 2, (count, num_classes)) + 2 * np.eye(num_classes)[y]).astype(np.float32), y


def outcomes(correct: NDArray[np.bool_], confidence: NDArray[np.floating[Any]] | None = None) -> Outcomes:
    """Return what became of rows of two classes, right or wrong."""
    true = np.arange(len(correct)) % 2
    sure = np.full(len(correct), 0.7) if confidence is None else confidence
    probability = np.where(correct, sure, 1 - sure).astype(np.float32)
    predicted = np.where(correct, true, 1 - true)
    return Outcomes(("a", "b"), 2, true, predicted, np.ones(len(correct), bool), probability, sure.astype(np.float32))


def test_summarise__by_hand() -> None:
    metrics = measured([[1, 0], [1, 0], [0, 1], [0, 1]], [0, 1, 1, 1])
    assert metrics["num_rows"] == 4
    assert metrics["top1"] == 0.75
    assert metrics["top5"] == 1.0
    assert metrics["mean_per_class"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics["per_class"]["a"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert metrics["per_class"]["b"] == {"precision": 1.0, "recall": pytest.approx(2 / 3), "f1": 0.8, "support": 3}
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert metrics["confusion"] == {"classes": ["a", "b"], "counts": [[1, 0], [1, 2]]}
    assert metrics["confusions"] == [{"true": "b", "predicted": "a", "count": 1}]
    p = 1 / (1 + np.exp(-1))
    assert metrics["log_loss"] == pytest.approx(-(3 * np.log(p) + np.log(1 - p)) / 4)
    assert metrics["ece"] == pytest.approx(abs(p - 0.75))


@pytest.mark.parametrize("num_classes", [2, 8, 30])
def test_summarise__as_scikit_learn_does(num_classes: int) -> None:
    X, y = scored(500, num_classes, seed=num_classes)
    head = linear_head(tuple(f"{i:02}" for i in range(num_classes)))
    metrics = summarise(observe(head, MemoryFeatures(X, y), head.classes))
    probabilities = head.probabilities(X).astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    labels = list(range(num_classes))
    assert metrics["top1"] == pytest.approx((predicted == y).mean())
    if num_classes > 2:
        top5 = top_k_accuracy_score(y, probabilities, k=5, labels=labels)
        assert metrics["top5"] == pytest.approx(top5)
        assert metrics["top1"] < top5 < 1
    present = sorted(set(y) | set(predicted))
    assert metrics["macro_f1"] == pytest.approx(
        f1_score(y, predicted, average="macro", labels=present, zero_division=0)
    )
    assert metrics["log_loss"] == pytest.approx(log_loss(y, probabilities, labels=labels), rel=1e-5)
    matrix = confusion_matrix(y, predicted, labels=labels)
    assert metrics["confusion"]["counts"] == matrix.tolist()
    report = classification_report(y, predicted, labels=labels, output_dict=True, zero_division=0)
    for place in labels:
        ours, theirs = metrics["per_class"][head.classes[place]], report[str(place)]
        assert ours == pytest.approx(
            {
                "precision": theirs["precision"],
                "recall": theirs["recall"],
                "f1": theirs["f1-score"],
                "support": theirs["support"],
            }
        )
    counts = [entry["count"] for entry in metrics["confusions"]]
    np.fill_diagonal(matrix, 0)
    assert counts == sorted(matrix[matrix > 0].tolist(), reverse=True)[:20]
    json.dumps(metrics)


def test_summarise__mean_per_class_is_over_the_classes_that_have_rows() -> None:
    X, y = scored(500, 8, seed=8)
    X[:, 7] = -100  # never predicted: scikit-learn warns of predicted classes without rows
    head = linear_head(tuple("abcdefgh"))
    metrics = summarise(observe(head, MemoryFeatures(X, y), head.classes))
    assert metrics["mean_per_class"] == pytest.approx(balanced_accuracy_score(y, X.argmax(axis=1)))


def test_summarise__a_class_unknown_to_the_head_counts_as_wrong() -> None:
    metrics = measured([[1, 0], [1, 0]], [0, 2], others=("z",))
    assert metrics["top1"] == metrics["top5"] == metrics["mean_per_class"] == 0.5
    assert metrics["num_unknown_class"] == 1
    assert metrics["confusion"]["classes"] == ["a", "b", "z"]
    assert metrics["log_loss"] == pytest.approx(-np.log(1 / (1 + np.exp(-1))))  # of the row whose class it knows
    assert metrics["per_class"]["z"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}


def test_summarise__rows_of_unknown_classes_alone_have_no_log_loss() -> None:
    metrics = measured([[1, 0], [1, 0]], [2, 2], others=("z",))
    assert (metrics["top1"], metrics["log_loss"], metrics["intervals"]["log_loss"]) == (0.0, None, None)
    json.dumps(metrics)


def test_summarise__beyond_256_classes_there_is_no_matrix() -> None:
    y = np.arange(300)
    many = Outcomes(
        tuple(map(str, y)), 300, y, y[::-1].copy(), y < 0, np.ones(300, np.float32), np.ones(300, np.float32)
    )
    metrics = summarise(many)
    assert "confusion" not in metrics
    assert len(metrics["confusions"]) == 20


def test_observe__of_equal_probabilities_the_earlier_class_comes_first() -> None:
    """As in predictions; a head that can't tell 7 classes apart has no top-5 accuracy of 1."""
    classes = tuple("abcdefg")
    features = MemoryFeatures(np.zeros((7, 7), np.float32), np.arange(7))
    seen = observe(linear_head(classes), features, classes)
    assert seen.in_top.tolist() == [True] * 5 + [False] * 2
    assert seen.predicted.tolist() == [0] * 7


@settings(deadline=None, max_examples=30)  # each resamples a thousand times
@given(st.lists(st.tuples(st.floats(2**-7, 1, width=32), st.booleans()), min_size=1, max_size=60))
def test_summarise__ece_as_a_plain_loop_has_it(rows: list[tuple[float, bool]]) -> None:
    expected = 0.0
    for i in range(15):
        of_bin = [(sure, right) for sure, right in rows if i / 15 < np.float64(sure) <= (i + 1) / 15]
        if of_bin:
            gap = np.mean([right for _, right in of_bin]) - np.mean([sure for sure, _ in of_bin])
            expected += len(of_bin) / len(rows) * abs(gap)
    confidence, correct = (np.asarray(column) for column in zip(*rows, strict=True))
    assert summarise(outcomes(correct, confidence))["ece"] == pytest.approx(expected, abs=1e-6)


def test_intervals__hold_the_truth_in_95_of_100_cases() -> None:
    random = np.random.default_rng(0)
    truth = {"top1": 0.8, "mean_per_class": 0.8, "log_loss": -0.8 * np.log(0.7) - 0.2 * np.log(0.3)}
    held = dict.fromkeys(truth, 0)
    for i in range(200):
        intervals = summarise(outcomes(random.random(150) < 0.8), seed=i)["intervals"]
        for name, value in truth.items():
            low, high = intervals[name]
            held[name] += low <= value <= high
    assert all(0.92 <= count / 200 <= 0.98 for count in held.values()), held


def test_intervals__narrow_with_the_rows_also_where_a_sample_stands_for_all() -> None:
    """Beyond 20,000 rows, of which a sample is resampled, too."""
    for count in (400, 80_000):
        correct = np.random.default_rng(0).permutation(np.arange(count) % 5 > 0)
        metrics = summarise(outcomes(correct))
        low, high = metrics["intervals"]["top1"]
        assert low < metrics["top1"] == 0.8 < high
        assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / count), rel=0.1)


def test_intervals__repeat_for_a_seed_and_hold_every_headline_metric() -> None:
    one = outcomes(np.random.default_rng(0).random(300) < 0.8)
    first, again, other = (summarise(one, seed)["intervals"] for seed in (0, 0, 1))
    assert first == again != other
    assert tuple(first) == HEADLINE
    metrics = summarise(one)
    for name in ("top1", "mean_per_class", "macro_f1", "log_loss"):
        low, high = first[name]
        assert low < metrics[name] < high
