"""Ridge regression onto the classes: the closed form, from sums that one pass collects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.heads.moments import Moments
from pipeline.heads.span import Span

#: Strengths of the penalty that are tried, relative to a standardised feature's variance.
ALPHA_GRID = tuple(float(alpha) for alpha in np.logspace(-6, 2, 17))


class RidgePath:
    """The solutions for all strengths: one eigendecomposition, then a matrix product each.

    Minimises the mean of |Y - W x - b|² + alpha |W|² with Y one-hot, on standardised features; the bias is not
    penalised. scikit-learn's Ridge has alpha times N.

    Args:
        moments: The training rows' sums.
        scale: float32 of shape (D,), the features' standard deviations.
        span: What the standardised training rows span, where it is known and they are few: the same solutions, without
            the decomposition of a D x D matrix.
    """

    def __init__(self, moments: Moments, scale: NDArray[np.float32], span: Span | None = None) -> None:
        if span is None:
            self._values, self._vectors = np.linalg.eigh(moments.correlation(scale))
        else:
            self._values, self._vectors = span.squares / moments.num_rows, span.basis.T
        share = moments.class_counts / moments.num_rows
        self._bias = share.astype(np.float32)
        # Covariance of the one-hot classes with the standardised features: (K, D).
        cross = share[:, None] * (moments.class_means - moments.mean) / scale
        cross[moments.class_counts == 0] = 0
        self._cross = cross @ self._vectors

    def solve(self, alpha: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return weight of shape (K, D) and bias of shape (K,), float32, for a strength."""
        inverse = 1 / (np.clip(self._values, 0, None) + alpha)
        return ((self._cross * inverse) @ self._vectors.T).astype(np.float32), self._bias
