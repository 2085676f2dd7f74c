"""Three classes as rings around each other, in many dimensions: what an MLP learns and a linear head can't."""

from __future__ import annotations

import numpy as np

from pipeline.heads.features import MemoryFeatures

DIM = 12


def rings(count: int, seed: int, spread: float = 0.15) -> MemoryFeatures:
    """Return rows of three classes in turn.

    Args:
        count: N.
        seed: Of the rows; the rings are always the same.
        spread: Standard deviation of the distance from a ring; they are 1 apart.
    """
    random = np.random.default_rng(seed)
    y = np.arange(count) % 3
    angle, radius = random.uniform(0, 2 * np.pi, count), 1 + y + spread * random.standard_normal(count)
    flat = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    turned = flat @ np.random.default_rng(99).standard_normal((2, DIM))
    return MemoryFeatures((turned + 0.02 * random.standard_normal((count, DIM))).astype(np.float32), y)
