"""k-nearest neighbours, looked for on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.heads.compute import from_stored, has_room
from pipeline.heads.models import Floats
from pipeline.heads.neighbours import Neighbours

#: Similarities, or values of training vectors, that are on the device at once: 1 GiB of them, and as much to find the
#: largest.
_AT_ONCE = 2**28


@dataclass(frozen=True)
class DeviceNeighbours(Neighbours):
    """`Neighbours` whose search runs on a device, in float32 as there.

    Which of equally similar rows count is the device's choice.

    Args:
        device: Where.
        rows: The bank as a tensor, on the device if it has room for it.
    """

    device: torch.device
    rows: torch.Tensor

    @classmethod
    def of(cls, model: Neighbours, device: torch.device) -> DeviceNeighbours:
        """Return a model that finds its neighbours on a device."""
        rows = from_stored(model.bank)
        place = device if has_room(device, model.bank.shape, rows.dtype) else torch.device("cpu")
        return cls(model.bank, model.places, model.k, model.tau, model.num_classes, device, rows.to(place))

    def nearest(self, X: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        """Return cosine similarities and places in the bank of the k nearest, nearest first.

        Args:
            X: float32 of shape (B, D), of length 1.
            k: How many; all, where the bank has fewer.

        Returns:
            float32 and int64 of shape (B, k).
        """
        asked = torch.from_numpy(np.ascontiguousarray(X)).to(self.device)
        best = torch.empty((len(X), 0), device=self.device)
        where = torch.empty((len(X), 0), dtype=torch.int64, device=self.device)
        step = max(k, _AT_ONCE // max(X.shape))
        for start in range(0, len(self.rows), step):
            part = asked @ self.rows[start : start + step].to(self.device).to(torch.float32).T
            values, places = part.topk(min(k, part.shape[1]), dim=1)
            best, where = torch.cat([best, values], dim=1), torch.cat([where, places + start], dim=1)
            best, kept = best.topk(min(k, best.shape[1]), dim=1)
            where = where.gather(1, kept)
        return best.cpu().numpy(), where.cpu().numpy()
