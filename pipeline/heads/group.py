"""Who trains: one process alone, or several that each hold a share of the rows and add up what they find."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed


class Group(Protocol):
    """The processes of one training; all of them do the same steps in the same order."""

    rank: int
    size: int

    def add(self, *tensors: torch.Tensor) -> None:
        """Put the sum over all processes into each tensor, in place."""


class Alone:
    """A training in this process only."""

    rank = 0
    size = 1

    def add(self, *tensors: torch.Tensor) -> None:
        """Leave the tensors as they are: there is nobody to add."""


class Workers:
    """The workers of torch.distributed's default process group."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()

    def add(self, *tensors: torch.Tensor) -> None:
        """Put the sum over all workers into each tensor, in place."""
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)
