"""Rows of one part that are all but equal to a row of another: by the cosine similarity of centred features.

Features of a network that ends in a rectifier are never negative, so any two images have a cosine of 0.5 to 0.9: their
mean dominates it. With the mean of the training rows subtracted, different images are about 0, and the same image
encoded again or a little resized stays close to 1.

All pairs are compared by random projections of their features to `_PROJECTED` dimensions, in bf16 where that is
faster. The cosine c of two projections onto P dimensions has a standard deviation of (1 - c²) / √P about the true one,
so that what lies more than five of them below the threshold need not be looked at; the rest is compared in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.heads.compute import fast_dtype, padded
from pipeline.heads.features import Features
from pipeline.heads.models import Floats
from pipeline.heads.rows import Mask

_PROJECTED = 256
_DEVIATIONS = 5.0
#: What the rounding of inputs and results to bf16 can take off a cosine.
_ROUNDING = 0.01
#: The likeliest rows of the other part that each row is compared with in float32.
_CANDIDATES = 4
#: Rows whose similarities to a block are in memory at once, and rows that are compared in float32 at once.
_ROWS, _EXACT_ROWS = 4096, 1024


@dataclass(frozen=True, slots=True)
class Nearest:
    """The most similar row of a bank, for each of Q rows.

    Args:
        place: int64 of shape (Q,), its number; -1 where none is similar enough.
        cosine: float32 of shape (Q,), that of the centred features; 0 where there is none.
    """

    place: NDArray[np.int64]
    cosine: Floats


def mean_of(features: Features) -> Floats:
    """Return the mean of all rows: float32 of shape (D,)."""
    total = np.zeros(features.embedding_dim, np.float64)
    for X, _ in features.blocks():
        total += X.sum(axis=0, dtype=np.float64)
    return (total / max(len(features), 1)).astype(np.float32)


def multiply_adds(num_bank: int, num_rows: int, embedding_dim: int) -> int:
    """Return what comparing all pairs costs."""
    return num_bank * num_rows * min(embedding_dim, _PROJECTED)


def nearest(bank: Features, rows: Features, mean: Floats, threshold: float, device: torch.device) -> Nearest:
    """Find each row's most similar row of a bank, where it is similar enough.

    The bank is read once, block by block; of the rows, projections are kept, 512 bytes each.

    Args:
        bank: Rows of another part.
        rows: Q rows.
        mean: float32 of shape (D,), subtracted from all of them.
        threshold: Least cosine of what is similar enough.
        device: Where it is computed.
    """
    likely = _Search(rows, mean, threshold, device).candidates(bank)
    place, similarity = np.full(len(rows), -1, np.int64), np.zeros(len(rows), np.float32)
    found = np.flatnonzero((likely >= 0).any(axis=1))
    for start in range(0, len(found), _EXACT_ROWS):
        asked = found[start : start + _EXACT_ROWS]
        others = np.sort(likely[asked], axis=1)  # so that of equal ones the first is taken
        numbers = np.unique(others[others >= 0])
        X, bank_X = _units(rows, asked, mean), _units(bank, numbers, mean)
        cosines = np.einsum("qd,qcd->qc", X, bank_X[np.searchsorted(numbers, np.maximum(others, numbers[0]))])
        cosines[others < 0] = -1
        best = cosines.argmax(axis=1)[:, None]
        value = np.minimum(np.take_along_axis(cosines, best, axis=1)[:, 0], 1)
        enough = value >= threshold
        place[asked[enough]] = np.take_along_axis(others, best, axis=1)[enough, 0]
        similarity[asked[enough]] = value[enough]
    return Nearest(place, similarity)


class _Search:
    """The comparison of all pairs."""

    def __init__(self, rows: Features, mean: Floats, threshold: float, device: torch.device) -> None:
        D, self._device, self._dtype = rows.embedding_dim, device, fast_dtype(device)
        self._mean = torch.from_numpy(mean).to(device)
        self._map, margin = None, 0.0
        if D > _PROJECTED:
            # Of what the seed is, no more than a chance in millions to miss a pair depends.
            random = torch.randn((D, _PROJECTED), generator=torch.Generator().manual_seed(0))
            self._map, margin = random.to(device), _DEVIATIONS * (1 - threshold**2) / _PROJECTED**0.5
        self._floor = threshold - margin - (_ROUNDING if self._dtype == torch.bfloat16 else 1e-5)
        self._count = len(rows)
        blocks = [self._projected(X) for X, _ in rows.blocks()]
        self._rows = torch.cat([block[:count] for block, count in blocks]) if blocks else None

    def candidates(self, bank: Features) -> NDArray[np.int64]:
        """Return the likeliest rows of the bank: int64 of shape (Q, 4), -1 where there is none."""
        best = torch.full((self._count, _CANDIDATES), -2.0, device=self._device)
        where = torch.full((self._count, _CANDIDATES), -1, dtype=torch.int64, device=self._device)
        if self._rows is None:
            return where.cpu().numpy()
        first = 0
        for X, _ in bank.blocks():
            block, count = self._projected(X)
            for start in range(0, self._count, _ROWS):
                similarity = self._rows[start : start + _ROWS] @ block.T
                hits = (similarity.amax(dim=1) >= self._floor).nonzero()[:, 0]
                if not len(hits):
                    continue
                values, places = similarity[hits, :count].to(torch.float32).topk(min(_CANDIDATES, count), dim=1)
                places = torch.where(values >= self._floor, places + first, -1)
                values, places = (
                    torch.cat(both, dim=1) for both in ((best[start + hits], values), (where[start + hits], places))
                )
                best[start + hits], chosen = values.topk(_CANDIDATES, dim=1)
                where[start + hits] = places.gather(1, chosen)
            first += count
        return where.cpu().numpy()

    def _projected(self, X: NDArray[np.float16] | NDArray[np.float32]) -> tuple[torch.Tensor, int]:
        """Return projections of length 1, with zeros where sides are padded, and how many there are."""
        values = torch.from_numpy(X.astype(np.float32)).to(self._device).sub_(self._mean)
        if self._map is not None:
            values = values @ self._map
        values = torch.nn.functional.normalize(values, dim=1).to(self._dtype)
        sides = (0, padded(values.shape[1]) - values.shape[1], 0, padded(len(X)) - len(X))
        return torch.nn.functional.pad(values, sides), len(X)


def _units(features: Features, numbers: NDArray[np.int64], mean: Floats) -> Floats:
    """Return some rows, centred and of length 1: float32 of shape (len(numbers), D); the numbers are in order."""
    keep: Mask = np.zeros(len(features), bool)
    keep[numbers] = True
    X = np.concatenate([X.astype(np.float32) for X, _ in features.only(keep).blocks()]) - mean
    length = np.linalg.norm(X, axis=1, keepdims=True)
    result: Floats = X / np.where(length > 0, length, np.float32(1))
    return result
