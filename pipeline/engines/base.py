"""The seam between the data flow and what executes a network."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ImageReject
from pipeline.images import Pixels

Embeddings = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What executed a network, for the run's record.

    Args:
        engine: ``openvino`` or ``torch``.
        precision: The arithmetic that was really used: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        device: The processor's or accelerator's own name.
        batch_size: Images in one call of the network.
        decode: What decoded the images that it can decode itself: ``cpu`` or ``gpu``.
    """

    engine: str
    precision: str
    device: str
    batch_size: int
    decode: str = "cpu"


class Engine(Protocol):
    """Executes one backbone on one device."""

    @property
    def info(self) -> EngineInfo:
        """Say what executes."""

    def embed_batches(self, batches: Iterable[Pixels]) -> Iterator[Embeddings]:
        """Embed batches of exactly ``info.batch_size`` images, several of them at a time where that is faster.

        Args:
            batches: uint8 arrays of shape (B, H, W, 3), BGR, C-contiguous.

        Yields:
            float32 of shape (B, D) for each batch, in order.
        """


@runtime_checkable
class SharedEngine(Engine, Protocol):
    """An engine that several threads may use at once.

    Each gets its own results and errors. Who came first is served first, and the batches of the next begin as soon as
    the first has no more of them to begin. In one thread, what ``embed_batches`` returns must be finished or closed
    before another begins.
    """

    takes_several_callers: bool


@runtime_checkable
class FileEngine(Engine, Protocol):
    """An engine that also decodes images, on its device."""

    def embed_files(self, batches: Iterable[Sequence[bytes]]) -> Iterator[tuple[Embeddings, dict[int, ImageReject]]]:
        """Decode, resize, crop and embed image files.

        Args:
            batches: Images that `pipeline.jpegs.size_for_gpu` accepts, ``info.batch_size`` of them or fewer.

        Yields:
            float32 of shape (n, D) for each batch, in order, and why images can't be decoded, by their places in it.
        """


class PixelRows(Protocol):
    """Images of one shape, of which any that follow one another can be had: an array is that."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, part: slice, /) -> Pixels:
        """Return uint8 of shape (n, H, W, 3), BGR, C-contiguous."""


def embed_by_batches(engine: Engine, pixels: PixelRows) -> Generator[Embeddings]:
    """Embed any number of images; the last batch is padded with zeros, whose results are dropped.

    Each batch has the same shape, so an image's embedding does not depend on how many others came with it.

    Args:
        engine: What executes.
        pixels: Of N images.

    Yields:
        float32 of shape (n, D): those of the next ``n <= info.batch_size`` images.
    """
    size = engine.info.batch_size
    starts = range(0, len(pixels), size)
    for start, embeddings in zip(starts, engine.embed_batches(_padded(pixels, size)), strict=True):
        yield embeddings[: len(pixels) - start]


def _padded(pixels: PixelRows, size: int) -> Iterator[Pixels]:
    for start in range(0, len(pixels), size):
        batch = pixels[start : start + size]
        missing = size - len(batch)
        yield np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)]) if missing else batch


def embed(engine: Engine, pixels: Pixels) -> Embeddings:
    """Return all that `embed_by_batches` yields, float32 of shape (N, D), N >= 1."""
    return np.concatenate(list(embed_by_batches(engine, pixels)))
