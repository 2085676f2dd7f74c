"""The k-nearest-neighbours head: a weighted vote of the training images that are most alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.heads.models import Floats, Tensors

#: Similarities, or values of training vectors, that are in memory at once: 64 MiB of them as float32, and four times as
#: much to find the largest.
_AT_ONCE = 2**24
#: What a class without a vote gets: what would round to nothing among k of them.
LEAST_SHARE = 1e-6


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Cosine k-NN with the weighted vote of the DINO evaluation.

    Each of the k training vectors of the highest cosine similarity s votes for its class with exp(s / tau); a class's
    share of the votes is its probability (Caron et al. 2021, "Emerging properties in self-supervised vision
    transformers"; the rule is Wu et al.'s of 2018, the reference code's tau is 0.07 and its k is 10, 20, 100 and 200,
    of which 20 did best).

    Args:
        bank: float16 of shape (N, D), training vectors of length 1.
        places: int32 of shape (N,), their classes.
        k: Neighbours that vote.
        tau: Temperature of the votes.
        num_classes: K.
    """

    bank: NDArray[np.float16]
    places: NDArray[np.int32]
    k: int
    tau: float
    num_classes: int

    @property
    def shape(self) -> tuple[int, int]:
        """D and K."""
        return int(self.bank.shape[1]), self.num_classes

    def scores(self, X: Floats) -> Floats:
        """Return the logarithm of each class's share of the votes, float32 of shape (B, K)."""
        similarity, places = self.nearest(normalised(X), self.k)
        weights = np.exp((similarity - similarity[:, :1]) / self.tau)
        votes = np.zeros((len(X), self.num_classes), np.float32)
        np.add.at(votes, (np.arange(len(X))[:, None], self.places[places]), weights)
        shares = votes / votes.sum(axis=1, keepdims=True)
        result: Floats = np.log(np.maximum(shares, np.float32(LEAST_SHARE)))
        return result

    def nearest(self, X: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        """Return cosine similarities and places in the bank of the k nearest, nearest first.

        Args:
            X: float32 of shape (B, D), of length 1.
            k: How many; all, where the bank has fewer.

        Returns:
            float32 and int64 of shape (B, k); of equal similarities the earlier one comes first.
        """
        best = np.zeros((len(X), 0), np.float32)
        where = np.zeros((len(X), 0), np.int64)
        step = max(k, _AT_ONCE // max(X.shape))
        for start in range(0, len(self.bank), step):
            part = X @ self.bank[start : start + step].astype(np.float32).T
            places = _largest(part, k)
            best = np.concatenate([best, np.take_along_axis(part, places, axis=1)], axis=1)
            where = np.concatenate([where, places + start], axis=1)
            kept = _largest(best, k)
            best, where = np.take_along_axis(best, kept, axis=1), np.take_along_axis(where, kept, axis=1)
        order = np.argsort(-best, axis=1, kind="stable")
        return np.take_along_axis(best, order, axis=1), np.take_along_axis(where, order, axis=1)

    def tensors(self) -> Tensors:
        """Return ``bank``, ``places`` and, as arrays of one value, ``k``, ``tau`` and ``num_classes``."""
        return {
            "bank": self.bank,
            "places": self.places,
            "k": np.asarray([self.k], np.int64),
            "tau": np.asarray([self.tau], np.float64),
            "num_classes": np.asarray([self.num_classes], np.int64),
        }

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> Neighbours:
        """Build it of what `tensors` returned; KeyError where something is missing."""
        bank, places = np.asarray(tensors["bank"], np.float16), np.asarray(tensors["places"], np.int32)
        k, tau, num_classes = (tensors[name][0] for name in ("k", "tau", "num_classes"))
        return cls(bank, places, int(k), float(tau), int(num_classes))


def normalised(X: NDArray[np.floating[Any]]) -> Floats:
    """Return rows of length 1, float32; a row of zeros stays one."""
    values = X.astype(np.float32, copy=False)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    result: Floats = values / np.where(length > 0, length, np.float32(1))
    return result


def _largest(values: Floats, k: int) -> NDArray[np.int64]:
    """Return the places of each row's k largest values in ascending order; of equal values the earlier ones count."""
    if values.shape[1] <= k:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    chosen = np.argpartition(values, -k, axis=1)[:, -k:]
    least = np.take_along_axis(values, chosen, axis=1).min(axis=1, keepdims=True)
    tied = (values >= least).sum(axis=1) > k
    if tied.any():
        chosen[tied] = np.argsort(-values[tied], axis=1, kind="stable")[:, :k]
    return np.sort(chosen, axis=1)
