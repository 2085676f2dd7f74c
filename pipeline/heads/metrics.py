"""What a head reaches on labelled rows, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from pipeline.heads.artefact import Head
from pipeline.heads.features import Features
from pipeline.heads.predictions import TOP_K

#: Confidence bins of the expected calibration error, as in Guo et al. 2017, "On calibration of modern neural networks".
_BINS = 15
#: Resamples of a bootstrap, and the rows up to which each draws rows; beyond, a sample of so many stands for all.
_RESAMPLES, _BOOTSTRAP_ROWS = 1000, 20_000
#: Values that a bootstrap has in memory at once, several times.
_RESAMPLED_AT_ONCE = 2**21
#: Classes up to which the whole confusion matrix is given; beyond, the most frequent confusions alone are.
_MATRIX_CLASSES = 256
_NUM_CONFUSIONS = 20


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of each of N rows.

    Args:
        classes: Names of the head's classes, then of those that it has never seen.
        num_known: How many of them the head knows.
        true: int64 of shape (N,).
        predicted: int64 of shape (N,).
        in_top: bool of shape (N,), whether the true class is among the five most probable.
        probability: float32 of shape (N,), of the true class; 0 where the head doesn't know it.
        confidence: float32 of shape (N,), of the predicted class.
    """

    classes: tuple[str, ...]
    num_known: int
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    in_top: NDArray[np.bool_]
    probability: NDArray[np.float32]
    confidence: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.true)

    def only(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Outcomes:
        """Return some of the rows, by a mask or by their numbers."""
        return Outcomes(
            self.classes,
            self.num_known,
            self.true[keep],
            self.predicted[keep],
            self.in_top[keep],
            self.probability[keep],
            self.confidence[keep],
        )


def observe(head: Head, features: Features, classes: Sequence[str]) -> Outcomes:
    """Classify all rows.

    Args:
        head: The head.
        features: Rows whose ``y`` are places in ``classes``.
        classes: The head's classes, then others.
    """
    K = len(head.classes)
    parts: list[tuple[NDArray[Any], ...]] = []
    for X, y in features.blocks():
        probabilities = head.probabilities(X)
        predicted = probabilities.argmax(axis=1)
        known = y < K
        of_true = np.where(known, probabilities[np.arange(len(y)), np.where(known, y, 0)], 0).astype(np.float32)
        # Of equal probabilities the earlier class comes first, as in predictions: a k-NN head has many of zero votes.
        earlier = np.arange(K) < y[:, None]
        above = ((probabilities > of_true[:, None]) | ((probabilities == of_true[:, None]) & earlier)).sum(axis=1)
        confidence = probabilities[np.arange(len(y)), predicted]
        parts.append((y, predicted, known & (above < TOP_K), of_true, confidence))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Outcomes(tuple(classes), K, *columns)


def summarise(outcomes: Outcomes, seed: int = 0) -> dict[str, Any]:
    """Measure.

    A row whose class the head has never seen counts as wrong in every accuracy, and is left out of the log loss, where
    its probability of zero would make everything infinite; ``num_unknown_class`` tells how many there are.

    Returns:
        As plain JSON values: ``num_rows``, ``num_unknown_class``; ``top1``, ``top5`` (the true class among the five
        most probable), ``mean_per_class`` (accuracy by class, its mean over the classes that have rows), ``macro_f1``
        (mean over the classes that have rows or predictions), ``log_loss`` (natural logarithm, mean over rows),
        ``ece`` (expected calibration error, 15 bins); ``intervals``: of each of those the bounds of its 95 % bootstrap
        interval; ``per_class`` with precision, recall, f1 and support; ``confusions``, the most frequent ones; and, up
        to 256 classes, ``confusion`` with ``classes`` and ``counts`` (rows true, columns predicted).
    """
    size = len(outcomes.classes)
    precision, recall, f1, support = _by_class(outcomes.true, outcomes.predicted, size)
    result: dict[str, Any] = {
        "num_rows": len(outcomes),
        "num_unknown_class": int((outcomes.true >= outcomes.num_known).sum()),
        **_of_all(outcomes),
        "intervals": _intervals(outcomes, seed),
        "per_class": {
            name: {
                "precision": float(precision[place]),
                "recall": float(recall[place]),
                "f1": float(f1[place]),
                "support": int(support[place]),
            }
            for place, name in enumerate(outcomes.classes)
        },
        "confusions": _confusions(outcomes),
    }
    if size <= _MATRIX_CLASSES:
        pairs = np.bincount(outcomes.true * size + outcomes.predicted, minlength=size * size)
        result["confusion"] = {"classes": list(outcomes.classes), "counts": pairs.reshape(size, size).tolist()}
    return result


def _of_all(outcomes: Outcomes) -> dict[str, float | None]:
    """Return the headline metrics of all rows."""
    values = _headline(outcomes, np.ones((len(outcomes), 1)))
    return {name: float(value[0]) if np.isfinite(value[0]) else None for name, value in values.items()}


def _bins(confidence: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return which of 15 bins of equal width each confidence is in; one on an edge is in the lower bin."""
    bins: NDArray[np.int64] = np.clip(np.ceil(confidence.astype(np.float64) * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    return bins


def _headline(outcomes: Outcomes, times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return the headline metrics of R samples of the rows: float64 of shape (R,), NaN for want of rows.

    Args:
        outcomes: N rows.
        times: float64 of shape (N, R), how often each row is in each sample.
    """
    correct = outcomes.true == outcomes.predicted
    support, chosen = (_by_place(places, outcomes) @ times for places in (outcomes.true, outcomes.predicted))
    hits = _by_place(outcomes.true, outcomes, correct) @ times
    recall, f1 = hits / np.maximum(support, 1), 2 * hits / np.maximum(support + chosen, 1)
    known = (outcomes.true < outcomes.num_known).astype(np.float64)
    losses = -np.log(np.clip(outcomes.probability.astype(np.float64), np.finfo(np.float32).tiny, 1.0))
    gaps = _by_place(_bins(outcomes.confidence), outcomes, correct - outcomes.confidence.astype(np.float64)) @ times
    num_rows = times.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return {
            "top1": correct.astype(np.float64) @ times / num_rows,
            "top5": outcomes.in_top.astype(np.float64) @ times / num_rows,
            "mean_per_class": recall.sum(axis=0) / (support > 0).sum(axis=0),
            "macro_f1": f1.sum(axis=0) / (support + chosen > 0).sum(axis=0),
            "log_loss": (losses * known) @ times / (known @ times),
            "ece": np.abs(gaps).sum(axis=0) / num_rows,
        }


def _by_place(places: NDArray[np.int64], outcomes: Outcomes, values: NDArray[Any] | None = None) -> csc_array:
    """Return a matrix that sums over the rows of each class, or bin: a value, unset: 1, in each column."""
    count = len(places)
    values = np.ones(count) if values is None else values.astype(np.float64)
    return csc_array((values, places, np.arange(count + 1)), shape=(max(len(outcomes.classes), _BINS), count))


def _by_class(
    true: NDArray[np.int64], predicted: NDArray[np.int64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return precision, recall, F1 (0 where there is nothing to divide by) and support of each class."""
    support = np.bincount(true, minlength=size)
    chosen = np.bincount(predicted, minlength=size)
    hits = np.bincount(true[true == predicted], minlength=size)
    precision, recall, f1 = (
        hits * factor / np.where(of > 0, of, 1)
        for factor, of in ((1.0, chosen), (1.0, support), (2.0, chosen + support))
    )
    return precision, recall, f1, support


def _intervals(outcomes: Outcomes, seed: int) -> dict[str, list[float] | None]:
    """Return the percentile bootstrap's 95 % interval of each headline metric.

    Of very many rows a random sample is resampled, and its interval is narrowed by the root of the share that it is.
    """
    random = np.random.default_rng(seed)
    whole = _of_all(outcomes)
    sample, narrower = outcomes, 1.0
    if len(outcomes) > _BOOTSTRAP_ROWS:
        keep = np.zeros(len(outcomes), bool)
        keep[random.choice(len(outcomes), _BOOTSTRAP_ROWS, replace=False)] = True
        sample, narrower = outcomes.only(keep), (_BOOTSTRAP_ROWS / len(outcomes)) ** 0.5
    centre = _of_all(sample)
    N = len(sample)
    at_once = max(1, _RESAMPLED_AT_ONCE // max(N, len(outcomes.classes)))
    parts = []
    for start in range(0, _RESAMPLES, at_once):
        R = min(at_once, _RESAMPLES - start)
        cells = random.integers(0, N, (N, R)) * R + np.arange(R)
        parts.append(_headline(sample, np.bincount(cells.ravel(), minlength=N * R).reshape(N, R).astype(np.float64)))
    result: dict[str, list[float] | None] = {}
    for name, value in whole.items():
        drawn = np.concatenate([part[name] for part in parts])
        drawn = drawn[np.isfinite(drawn)]
        middle = centre[name]
        if value is None or middle is None or not len(drawn):
            result[name] = None
            continue
        result[name] = [float(value + narrower * (bound - middle)) for bound in np.percentile(drawn, [2.5, 97.5])]
    return result


def _confusions(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Return the most frequent pairs of a true and another predicted class."""
    wrong = outcomes.true != outcomes.predicted
    size = len(outcomes.classes)
    pairs, counts = np.unique(outcomes.true[wrong] * size + outcomes.predicted[wrong], return_counts=True)
    best = np.argsort(-counts, kind="stable")[:_NUM_CONFUSIONS]
    return [
        {
            "true": outcomes.classes[pairs[i] // size],
            "predicted": outcomes.classes[pairs[i] % size],
            "count": int(counts[i]),
        }
        for i in best
    ]
