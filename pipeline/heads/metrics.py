"""What a head reaches on labelled rows, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.heads.artefact import Head
from pipeline.heads.features import Block, Features
from pipeline.heads.predictions import TOP_K

#: Confidence bins of the expected calibration error, as in Guo et al. 2017, "On calibration of modern neural networks".
_BINS = 15
#: Resamples of a bootstrap, and the rows up to which each draws rows; beyond, a sample of so many stands for all.
_RESAMPLES, _BOOTSTRAP_ROWS = 1000, 20_000
#: Probabilities that are in memory at once: of 10,000 classes, those of 1,677 rows.
_MAX_PROBABILITIES = 2**24
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
    for X, y in _slices(features, max(1, _MAX_PROBABILITIES // K)):
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


def _slices(features: Features, size: int) -> Iterator[Block]:
    for X, y in features.blocks():
        for start in range(0, len(y), size):
            yield X[start : start + size], y[start : start + size]


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
    true, predicted = outcomes.true, outcomes.predicted
    wrong = true != predicted
    support = np.bincount(true, minlength=size)
    precision, recall, f1 = _by_class(
        support, np.bincount(predicted, minlength=size), np.bincount(true[~wrong], minlength=size)
    )
    result: dict[str, Any] = {
        "num_rows": len(outcomes),
        "num_unknown_class": int((true >= outcomes.num_known).sum()),
        **headline(outcomes),
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
        "confusions": confused(true[wrong], predicted[wrong], outcomes.classes, _NUM_CONFUSIONS),
    }
    if size <= _MATRIX_CLASSES:
        pairs = np.bincount(true * size + predicted, minlength=size * size)
        result["confusion"] = {"classes": list(outcomes.classes), "counts": pairs.reshape(size, size).tolist()}
    return result


def headline(outcomes: Outcomes) -> dict[str, float | None]:
    """Return the headline metrics of `summarise`, which need no more than a pass."""
    return _Columns(outcomes).headline(np.ones(len(outcomes)))


def _bins(confidence: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.clip(np.ceil(confidence.astype(np.float64) * _BINS).astype(np.int64) - 1, 0, _BINS - 1)


class _Columns:
    """What the headline metrics are sums of: a resample is the same rows with other weights."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._size, self._true, self._predicted = len(outcomes.classes), outcomes.true, outcomes.predicted
        self._correct = (outcomes.true == outcomes.predicted).astype(np.float64)
        self._in_top = outcomes.in_top.astype(np.float64)
        self._known = (outcomes.true < outcomes.num_known).astype(np.float64)
        probability = np.clip(outcomes.probability.astype(np.float64), np.finfo(np.float32).tiny, 1.0)
        self._loss = -np.log(probability) * self._known
        self._bin, self._gap = _bins(outcomes.confidence), self._correct - outcomes.confidence

    def headline(self, weights: NDArray[np.float64]) -> dict[str, float | None]:
        """Return the metrics where each row counts as often as its weight says: float64 of shape (N,)."""
        total, known, in_top, loss = (
            float((weights * column).sum())  # not @: BLAS takes threads for it, which costs more than it saves
            for column in (1.0, self._known, self._in_top, self._loss)
        )
        support, chosen, hits = (
            np.bincount(of, weight, minlength=self._size)
            for of, weight in (
                (self._true, weights),
                (self._predicted, weights),
                (self._true, weights * self._correct),
            )
        )
        _, recall, f1 = _by_class(support, chosen, hits)
        return {
            "top1": float(hits.sum()) / total,
            "top5": in_top / total,
            "mean_per_class": float(recall[support > 0].mean()),
            "macro_f1": float(f1[(support > 0) | (chosen > 0)].mean()),
            "log_loss": loss / known if known else None,
            "ece": float(np.abs(np.bincount(self._bin, weights * self._gap, minlength=_BINS)).sum()) / total,
        }


def _by_class(
    support: NDArray[Any], chosen: NDArray[Any], hits: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return precision, recall and F1 of each class, 0 where there is nothing to divide by.

    Args:
        support: Rows of each class, of shape (K,).
        chosen: Rows that are taken for it.
        hits: Rows of it that are taken for it.
    """
    precision, recall, f1 = (
        hits * factor / np.where(of > 0, of, 1)
        for factor, of in ((1.0, chosen), (1.0, support), (2.0, chosen + support))
    )
    return precision, recall, f1


def _intervals(outcomes: Outcomes, seed: int) -> dict[str, list[float] | None]:
    """Return the percentile bootstrap's 95 % interval of each headline metric.

    Of very many rows a random sample is resampled, and its interval is narrowed by the root of the share that it is.
    """
    random = np.random.default_rng(seed)
    whole = headline(outcomes)
    sample, narrower = outcomes, 1.0
    if len(outcomes) > _BOOTSTRAP_ROWS:
        keep = np.zeros(len(outcomes), bool)
        keep[random.choice(len(outcomes), _BOOTSTRAP_ROWS, replace=False)] = True
        sample, narrower = outcomes.only(keep), (_BOOTSTRAP_ROWS / len(outcomes)) ** 0.5
    columns, size = _Columns(sample), len(sample)
    centre = columns.headline(np.ones(size))
    drawn: dict[str, list[float]] = {name: [] for name in whole}
    for _ in range(_RESAMPLES):
        weights = np.bincount(random.integers(0, size, size), minlength=size).astype(np.float64)
        for name, value in columns.headline(weights).items():
            if value is not None:
                drawn[name].append(value)
    result: dict[str, list[float] | None] = {}
    for name, value in whole.items():
        middle = centre[name]
        if value is None or middle is None or not drawn[name]:
            result[name] = None
            continue
        bounds = np.percentile(drawn[name], [2.5, 97.5])
        result[name] = [float(value + narrower * (bound - middle)) for bound in bounds]
    return result


def confused(
    true: NDArray[np.int64], predicted: NDArray[np.int64], names: Sequence[str], most: int
) -> list[dict[str, Any]]:
    """Return the most frequent pairs of a true and a predicted class, of rows by their places in ``names``."""
    pairs, counts = np.unique(true * len(names) + predicted, return_counts=True)
    best = np.argsort(-counts, kind="stable")[:most]
    return [
        {"true": names[pairs[i] // len(names)], "predicted": names[pairs[i] % len(names)], "count": int(counts[i])}
        for i in best
    ]
