"""Who trains: one process alone, or several that each hold a share of the rows and add up what they find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.heads.rows import Mask

if TYPE_CHECKING:  # who predicts divides rows, too, and need not wait for PyTorch
    import torch


class Group(Protocol):
    """The processes of one training; all of them do the same steps in the same order."""

    rank: int
    size: int

    def add(self, *tensors: torch.Tensor) -> None:
        """Put the sum over all processes into each tensor, in place."""

    def share(self, data: bytes) -> bytes:
        """Return the data that the process of rank 0 has."""


class Alone:
    """A training in this process only."""

    rank = 0
    size = 1

    def add(self, *tensors: torch.Tensor) -> None:
        """Leave the tensors as they are: there is nobody to add."""

    def share(self, data: bytes) -> bytes:
        """Return the data."""
        return data


class Workers:
    """The workers of torch.distributed's default process group."""

    def __init__(self) -> None:
        import torch.distributed

        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()

    def add(self, *tensors: torch.Tensor) -> None:
        """Put the sum over all workers into each tensor, in place."""
        import torch.distributed

        for tensor in tensors:
            torch.distributed.all_reduce(tensor)

    def share(self, data: bytes) -> bytes:
        """Return the data that the worker of rank 0 has."""
        import torch.distributed

        length = torch.tensor(len(data))
        torch.distributed.broadcast(length, src=0)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0 and data:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        torch.distributed.broadcast(content, src=0)
        return content.numpy().tobytes()


def largest(group: Group, value: int) -> int:
    """Return the largest of the values that the processes have."""
    import torch

    values = torch.zeros(group.size, dtype=torch.int64)
    values[group.rank] = value
    group.add(values)
    return int(values.max())


def share_of(mask: Mask, group: Group) -> Mask:
    """Return this process's share of some rows: a range of them, as long as the others' but for one row.

    Ranges, so that a worker reads few files that others read, too.

    Args:
        mask: bool of shape (N,), all rows that are shared out.
        group: Who shares.
    """
    rows = np.flatnonzero(mask)
    first, last = (len(rows) * rank // group.size for rank in (group.rank, group.rank + 1))
    share = np.zeros(len(mask), bool)
    share[rows[first:last]] = True
    return share
