"""Mini-batches of standardised features, in an order that a seed decides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from pipeline.heads.compute import Standardised, has_room
from pipeline.heads.features import MemoryFeatures
from pipeline.heads.group import Group, largest

#: Room between the seeds of trainings, for the numbers of their epochs.
_EPOCHS = 2**20


class Batches:
    """Mini-batches of a group's rows: each worker takes a part of each batch out of its share of the rows.

    Features in memory are standardised once, and lie on the device if they fit there.

    Args:
        rows: This worker's share of the rows.
        batch_size: Rows of a batch, of all workers together.
        seed: Decides the order, together with the epoch.
        group: Who trains.
    """

    def __init__(self, rows: Standardised, batch_size: int, seed: int, group: Group) -> None:
        self._rows = rows
        self._size = -(-batch_size // group.size)
        self._seed = seed
        self._whole = _whole(rows) if isinstance(rows.features, MemoryFeatures) else None
        self.steps = -(-largest(group, len(rows)) // self._size)

    def epoch(self, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield each row once: X of shape (B, D) and y of shape (B,), int64.

        Every worker yields equally many; those of smaller shares end with batches of no rows.
        """
        device, steps = self._rows.device, 0
        for X, y in self._batches(self._seed * _EPOCHS + number):
            steps += 1
            yield X.to(device, non_blocking=True), y.to(device, non_blocking=True)
        for _ in range(steps, self.steps):
            none = torch.zeros((0, self._rows.features.embedding_dim), dtype=self._rows.dtype, device=device)
            yield none, torch.zeros(0, dtype=torch.int64, device=device)

    def _batches(self, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if self._whole is None:
            for values, places in self._rows.features.shuffled(self._size, seed):
                yield self._rows.standardise(values), torch.from_numpy(places)
            return
        X, y = self._whole
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(y))).to(X.device)
        for chosen in torch.split(order, self._size) if len(y) else ():
            yield X.index_select(0, chosen), y.index_select(0, chosen)


def _whole(rows: Standardised) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all rows at once: on the device if they fit there, else in memory."""
    place = rows.device if has_room(rows.device, rows.shape, rows.dtype) else torch.device("cpu")
    X = torch.empty(rows.shape, dtype=rows.dtype, device=place)
    start = 0
    for values, _ in rows.features.blocks():
        X[start : start + len(values)] = rows.standardise(values)
        start += len(values)
    return X, torch.from_numpy(rows.features.y).to(place)
