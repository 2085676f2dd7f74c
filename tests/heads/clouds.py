"""Clouds of points, one a class, to fit heads to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.heads import HeadOptions
from pipeline.heads.compute import Standardised
from pipeline.heads.features import MemoryFeatures
from pipeline.heads.group import Alone
from pipeline.heads.moments import Moments, measure
from pipeline.heads.task import FitTask
from tests.heads.tables import contract

CPU = torch.device("cpu")


def clouds(
    count: int, num_classes: int, dim: int, seed: int, spread: float = 1.5, like: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return points around the centre of each class; those of one ``like`` have the same centres, whatever the seed.

    Returns:
        float32 of shape (N, D), on scales of their own and far from zero, and int64 of shape (N,).
    """
    shape = np.random.default_rng(like)
    centres, scale = shape.normal(0, 1, (num_classes, dim)), 10.0 ** shape.uniform(-2, 2, dim)
    random = np.random.default_rng(seed)
    y = random.permutation(np.arange(count) % num_classes)
    X = centres[y] + random.normal(0, spread, (count, dim))
    return ((X + 3) * scale).astype(np.float32), y.astype(np.int64)


def nobody(dim: int) -> MemoryFeatures:
    """Return features of no rows."""
    return MemoryFeatures(np.zeros((0, dim), np.float32), np.zeros(0, np.int64))


def task(
    train: tuple[NDArray[Any], NDArray[np.int64]],
    validation: tuple[NDArray[Any], NDArray[np.int64]] | None = None,
    num_classes: int | None = None,
    **options: Any,
) -> FitTask:
    """Return a fit to points in memory."""
    dim = train[0].shape[1]
    classes = tuple(str(i) for i in range(num_classes or int(train[1].max()) + 1))
    held = nobody(dim) if validation is None else MemoryFeatures(*validation)
    return FitTask(HeadOptions(device="cpu", **options), contract(dim), classes, MemoryFeatures(*train), held)


def measured(X: NDArray[Any], y: NDArray[np.int64], num_classes: int) -> Moments:
    """Return the sums over some points."""
    return measure(MemoryFeatures(X, y), num_classes, Alone(), CPU)


def standardised(X: NDArray[Any], y: NDArray[np.int64], moments: Moments, dtype: torch.dtype) -> Standardised:
    """Return points as a fit reads them."""
    mean, scale = moments.standardisation()
    return Standardised(MemoryFeatures(X, y), mean, scale, CPU, dtype)
