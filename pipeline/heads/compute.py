"""Where heads are computed, and in what arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.heads.features import BLOCK_ROWS, Features, MemoryFeatures

#: Share of a GPU's free memory that features may take.
_DEVICE_SHARE = 0.6
#: What a matrix product's sides are padded to: oneDNN's and cuBLAS's bf16 kernels are up to three times slower else.
PAD = 32


def pick_device(asked: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: There is no such device.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError("Asked for --device cuda, but PyTorch finds no CUDA device here. Use --device cpu.")
    return torch.device(asked)


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bf16 where the device multiplies it faster than float32, else float32.

    Products are summed in float32 either way.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # PyTorch has no public question for it.
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has or getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)() else torch.float32


def has_room(device: torch.device, shape: tuple[int, int], dtype: torch.dtype) -> bool:
    """Tell whether a device has room for so many values; what memory holds was asked before."""
    if device.type != "cuda":
        return True
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch's, to be used again
    return shape[0] * shape[1] * dtype.itemsize <= _DEVICE_SHARE * (torch.cuda.mem_get_info(device)[0] + unused)


@dataclass
class Standardised:
    """Features minus their mean, over their scale, as blocks of tensors on a device.

    Features in memory are standardised once and kept, if the device has room for them; streamed ones each time that
    they are read.

    Args:
        features: N of them.
        mean: float32 of shape (D,).
        scale: float32 of shape (D,).
        device: Where the blocks are put.
        dtype: Their type.
        keep: Whether features in memory are kept; else they are standardised each time, too.
    """

    features: Features
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    device: torch.device
    dtype: torch.dtype
    keep: bool = True
    _kept: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list, init=False)

    def __len__(self) -> int:
        return len(self.features)

    def become(self, dtype: torch.dtype) -> None:
        """Have rows of another type from now on."""
        self.dtype, self._kept = dtype, []

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return len(self.features), self.features.embedding_dim

    def blocks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield X of shape (B, D) and y of shape (B,), int64."""
        if self._kept:
            yield from self._kept
            return
        keep = self.keep and isinstance(self.features, MemoryFeatures) and has_room(self.device, self.shape, self.dtype)
        made: list[tuple[torch.Tensor, torch.Tensor]] = []
        for X, y in self.features.blocks():
            block = self.standardise(X), torch.from_numpy(y).to(self.device)
            if keep:
                made.append(block)
            yield block
        self._kept = made  # only now that they are complete: a caller may have stopped before

    def standardise(self, X: NDArray[np.float16] | NDArray[np.float32]) -> torch.Tensor:
        """Return standardised rows: a tensor of shape (B, D)."""
        mean, factor = (torch.from_numpy(part).to(self.device) for part in (self.mean, 1 / self.scale))
        raw = from_stored(X).to(self.device)
        result = torch.empty(raw.shape, dtype=self.dtype, device=self.device)
        for start in range(0, len(raw), BLOCK_ROWS):
            part = raw[start : start + BLOCK_ROWS].to(torch.float32, copy=True)
            result[start : start + BLOCK_ROWS] = part.sub_(mean).mul_(factor)
        return result


def from_stored(X: NDArray[np.float16] | NDArray[np.float32]) -> torch.Tensor:
    """Return features as a tensor; of what lies in a file's read-only memory, a copy."""
    return torch.from_numpy(np.require(X, requirements=("C", "W")))


def padded(count: int) -> int:
    """Return the least multiple of `PAD` that is at least ``count``."""
    return -(-count // PAD) * PAD
