"""Sums over all training rows that standardisation, ridge regression and preconditioning need: one pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.heads.compute import from_stored
from pipeline.heads.features import Features
from pipeline.heads.group import Group


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over N rows of D features in K classes.

    Args:
        num_rows: N.
        mean: float64 of shape (D,).
        covariance: float64 of shape (D, D), divided by N.
        class_counts: int64 of shape (K,).
        class_means: float64 of shape (K, D), zero for a class without rows.
    """

    num_rows: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    class_counts: NDArray[np.int64]
    class_means: NDArray[np.float64]

    def standardisation(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and standard deviation of each feature, 1 where a feature is constant: float32 of shape (D,)."""
        return self.mean.astype(np.float32), _deviation(self.mean, np.diag(self.covariance))

    def correlation(self, scale: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the covariance of the standardised features: shape (D, D)."""
        result: NDArray[np.float64] = self.covariance / np.outer(scale, scale).astype(np.float64)
        return result


@dataclass(frozen=True, slots=True)
class Spread:
    """What standardisation alone needs, for a small part of the time.

    Args:
        num_rows: N.
        mean: float32 of shape (D,).
        scale: float32 of shape (D,), as of `Moments.standardisation`.
        class_counts: int64 of shape (K,).
    """

    num_rows: int
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    class_counts: NDArray[np.int64]


def spread(features: Features, num_classes: int, group: Group, device: torch.device) -> Spread:
    """Read all rows once, for their mean and deviation; the arguments are those of `measure`."""
    D = features.embedding_dim
    sums, squares = torch.zeros((2, D), dtype=torch.float64, device=device)
    counts = torch.from_numpy(np.bincount(features.y, minlength=num_classes))
    shift = _shift(features, group, device)
    for values, _ in features.blocks():
        X = from_stored(values).to(device).to(torch.float32) - shift
        sums += X.sum(dim=0)
        squares += X.square_().sum(dim=0)
    sums, squares = sums.cpu(), squares.cpu()
    group.add(sums, squares, counts)
    N = int(counts.sum())
    mean = (sums / N).numpy()
    centre = mean + shift.cpu().double().numpy()
    scale = _deviation(centre, (squares / N).numpy() - mean**2)
    return Spread(N, centre.astype(np.float32), scale, counts.numpy())


def _deviation(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return standard deviations, 1 where a feature is constant: float32 of shape (D,)."""
    scale = np.sqrt(np.clip(variance, 0, None))
    # As scikit-learn's StandardScaler: a deviation of rounding errors is none.
    scale[scale <= 10 * np.finfo(np.float32).eps * np.abs(mean)] = 1.0
    scale[scale == 0] = 1.0
    result: NDArray[np.float32] = scale.astype(np.float32)
    return result


def measure(features: Features, num_classes: int, group: Group, device: torch.device) -> Moments:
    """Read all rows once.

    Args:
        features: The training rows, or this process's share of them.
        num_classes: K.
        group: Who trains.
        device: Where products are computed: float32 within a block, float64 beyond.
    """
    D = features.embedding_dim
    gram = torch.zeros((D, D), dtype=torch.float64, device=device)
    sums = torch.zeros((num_classes, D), dtype=torch.float64, device=device)
    counts = torch.from_numpy(np.bincount(features.y, minlength=num_classes).astype(np.float64))
    shift = _shift(features, group, device)
    for values, places in features.blocks():
        X = from_stored(values).to(device).to(torch.float32) - shift
        y = torch.from_numpy(places).to(device)
        gram += X.T @ X
        sums += torch.zeros((num_classes, D), dtype=torch.float32, device=device).index_add_(0, y, X)
    gram, sums = gram.cpu(), sums.cpu()
    group.add(gram, sums, counts)
    N = float(counts.sum())
    centre = shift.cpu().double()
    mean = sums.sum(dim=0) / N
    class_means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None] + centre, 0)
    return Moments(
        int(N),
        (mean + centre).numpy(),
        (gram / N - torch.outer(mean, mean)).numpy(),
        counts.numpy().astype(np.int64),
        class_means.numpy(),
    )


def _shift(features: Features, group: Group, device: torch.device) -> torch.Tensor:
    """Return about the mean, by the first block: sums of values near zero lose nothing to rounding."""
    total = torch.zeros(features.embedding_dim, dtype=torch.float64)
    count = torch.zeros(1, dtype=torch.float64)
    for X, _ in features.blocks():
        total += torch.from_numpy(X.mean(axis=0, dtype=np.float64)) * len(X)
        count += len(X)
        break
    group.add(total, count)
    return (total / count.clamp(min=1)).to(torch.float32).to(device)
