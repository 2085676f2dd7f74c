"""Few rows of many features: the same regression in as many coordinates as there are rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.heads.features import MemoryFeatures
from pipeline.heads.models import Floats
from pipeline.heads.task import FitTask

#: Rows per feature below which it pays: an eigendecomposition of N x N against factors of D x D.
_SHARE = 1.0
#: Squared singular values below this share of the largest are rounding errors.
_RANK = 1e-12


@dataclass(frozen=True, slots=True)
class Span:
    """An orthonormal basis of what the training rows span.

    A penalty on |W|² leaves a linear model's weights there, whatever its loss (the representer theorem), so nothing is
    lost.

    Args:
        basis: float64 of shape (R, D), rows orthonormal.
        squares: float64 of shape (R,), the squared singular values of the rows.
    """

    basis: NDArray[np.float64]
    squares: NDArray[np.float64]

    def coordinates(self, X: NDArray[np.floating[Any]]) -> Floats:
        """Return float32 of shape (B, R) for standardised features, or weights, of shape (B, D)."""
        result: Floats = (X @ self.basis.T).astype(np.float32)
        return result

    def weights(self, weight: Floats) -> Floats:
        """Return weights of shape (K, D) for weights of shape (K, R)."""
        result: Floats = (weight @ self.basis).astype(np.float32)
        return result


def span_of(task: FitTask) -> Span | None:
    """Return the span of the standardised training rows; None where they are not few, or not all here in memory."""
    train = task.train
    few = len(train) < _SHARE * train.embedding_dim
    if not few or not isinstance(train, MemoryFeatures) or task.group.size > 1:
        return None
    X = (train.X.astype(np.float64) - task.spread.mean) / task.spread.scale
    squares, vectors = np.linalg.eigh(X @ X.T)
    kept = squares > _RANK * max(float(squares[-1]), np.finfo(np.float64).tiny)
    return Span((vectors[:, kept] / np.sqrt(squares[kept])).T @ X, squares[kept])
