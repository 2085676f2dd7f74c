"""Some of the training rows: as many of each class as are asked for, or a share of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.heads.parts import Parts
from pipeline.heads.rows import TRAIN, Mask
from pipeline.heads.splits import in_random_order

#: Salt of the order in which rows are taken.
_SALT = 3


@dataclass(frozen=True, slots=True)
class Subset:
    """The first training rows of each class, in the order of a hash of their content and a seed.

    A larger one has what a smaller one has.

    Args:
        seed: Another one takes other rows.
        share: Of each class, rounded up, and one row at least (0 to 1).
        shots: Rows of each class instead; of smaller classes all.
    """

    seed: int
    share: float = 1.0
    shots: int | None = None

    def of(self, parts: Parts) -> Mask:
        """Return which of the training rows they are: bool of shape (training rows,)."""
        rows = np.flatnonzero(parts.masks[TRAIN])
        label = parts.rows.label[rows]
        order = np.lexsort((in_random_order(parts.rows.content[rows], self.seed, _SALT), label))
        size = np.bincount(label)
        rank = np.empty(len(rows), np.int64)
        rank[order] = np.arange(len(rows)) - (np.cumsum(size) - size)[label[order]]
        if self.shots is None:  # less a little, since 0.07 * 100 is above 7
            wanted = np.maximum(1, np.ceil(self.share * size - 1e-9))
        else:
            wanted = np.minimum(self.shots, size)
        result: Mask = rank < wanted[label]
        return result
