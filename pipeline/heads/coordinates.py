"""Coordinates in which a regression is easy: the features' covariance, and its factor."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.heads.compute import Standardised
from pipeline.heads.group import Group

#: Rows per feature by which the covariance for the coordinates is estimated: more make no difference.
_ROWS_PER_FEATURE = 8


def correlation(rows: Standardised, num_rows: int, group: Group) -> NDArray[np.float64]:
    """Return the covariance of standardised features, by some of the rows: float64 of shape (D, D).

    Args:
        rows: The training rows, or this process's share of them.
        num_rows: N, of all processes together.
        group: Who trains.
    """
    D = rows.features.embedding_dim
    step = max(1, num_rows // (_ROWS_PER_FEATURE * D))
    gram = torch.zeros((D, D), dtype=torch.float64, device=rows.device)
    count = torch.zeros(1, dtype=torch.float64)
    for X, _ in rows.blocks():
        some = X[::step]
        gram += some.T @ some
        count += len(some)
    gram = gram.cpu()
    group.add(gram, count)
    result: NDArray[np.float64] = (gram / count).numpy()
    # Over all rows these are 1. A feature that is on in few rows may be off in all of these, and a coordinate that
    # stands for next to nothing would be stretched without bounds.
    np.fill_diagonal(result, np.maximum(np.diag(result), 1))
    return result


def cholesky(matrix: torch.Tensor, little: float) -> torch.Tensor:
    """Return a factor of a matrix that may be indefinite by rounding errors, with as much on its diagonal as needed.

    Such are correlations of more features than rows, or of features that are sums of others.
    """
    factor: torch.Tensor
    while little < 1:
        matrix.diagonal().add_(little)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not failed:
            return factor
        little *= 10
    factor = torch.linalg.cholesky(matrix)  # says what is wrong with it: values that are not finite
    return factor
