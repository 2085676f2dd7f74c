"""The seam between the data flow and what executes a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.images import Pixels

Embeddings = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What executed a network, for the run's record.

    Args:
        engine: ``openvino`` or ``torch``.
        precision: The arithmetic that was really used: ``fp32``, ``bf16`` or ``fp16``.
        device: The processor's or accelerator's own name.
        batch_size: Images in one call of the network.
    """

    engine: str
    precision: str
    device: str
    batch_size: int


class Engine(Protocol):
    """Executes one backbone on one device."""

    @property
    def info(self) -> EngineInfo:
        """Say what executes."""

    def embed_batch(self, pixels: Pixels) -> Embeddings:
        """Embed exactly ``info.batch_size`` images.

        Args:
            pixels: uint8 array of shape (B, H, W, 3), BGR, C-contiguous.

        Returns:
            float32 of shape (B, D).
        """


def embed(engine: Engine, pixels: Pixels) -> Embeddings:
    """Embed any number of images; the last batch is padded with zeros, whose results are dropped.

    Each batch has the same shape, so an image's embedding does not depend on how many others came with it.

    Args:
        engine: What executes.
        pixels: uint8 array of shape (N, H, W, 3), BGR.

    Returns:
        float32 of shape (N, D), N >= 1.
    """
    size = engine.info.batch_size
    batches = []
    for start in range(0, len(pixels), size):
        batch = pixels[start : start + size]
        missing = size - len(batch)
        if missing:
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)])
        batches.append(engine.embed_batch(batch)[: size - missing])
    return np.concatenate(batches)
