"""Several batches at work on one device, results in order, and smaller ones where its memory doesn't suffice."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from pipeline.engines.base import Embeddings
from pipeline.engines.lanes import Lane
from pipeline.images import Pixels

logger = logging.getLogger(__name__)

#: uint8 of shape (B, H, W, 3), BGR: in the host's memory, or on the device where it was decoded.
Batch = Pixels | torch.Tensor


class Ring:
    """Sends batches through lanes, as many at a time as there are lanes.

    Where the device's memory doesn't suffice, batches are cut in halves until it does, and stay so.

    Args:
        make_lanes: Makes lanes for so many images each. That, or to start them, may raise torch.cuda.OutOfMemoryError.
        size: Images in one call of the network.
    """

    def __init__(self, make_lanes: Callable[[int], Sequence[Lane[Batch]]], size: int) -> None:
        self._make_lanes, self._size = make_lanes, size
        self._lanes = self._fitting_lanes()

    def embed_batches(self, batches: Iterable[Batch]) -> Iterator[Embeddings]:
        """Embed batches; of several such iterators, each must be finished or closed before the next begins.

        Args:
            batches: Of shape (b, H, W, 3), b >= 1.

        Yields:
            float32 of shape (b, D) for each batch, in order.
        """
        parts = []
        for part, is_last in self._parts(batches):
            parts.append(part)
            if is_last:
                yield parts[0] if len(parts) == 1 else np.concatenate(parts)
                parts = []

    def _parts(self, batches: Iterable[Batch]) -> Iterator[tuple[Embeddings, bool]]:
        """Yield the embeddings of what batches are cut into, and whether each is its batch's last part."""
        at_work: deque[tuple[Lane[Batch], bool]] = deque()
        free = deque(self._lanes)

        def oldest() -> tuple[Embeddings, bool]:
            lane, is_last = at_work.popleft()
            embeddings = lane.collect()
            free.append(lane)
            return embeddings, is_last

        try:
            for batch in batches:
                start = 0
                while start < len(batch):
                    if not free:
                        yield oldest()
                    end = min(start + self._size, len(batch))
                    if self._started(free[0], batch[start:end]):
                        at_work.append((free.popleft(), end == len(batch)))
                        start = end
                    else:
                        while at_work:  # what they hold is memory, too
                            yield oldest()
                        free.clear()
                        self._halve()
                        free.extend(self._lanes)
            while at_work:
                yield oldest()
        finally:
            while at_work:  # where nobody wants the other results
                at_work.popleft()[0].collect()

    def _started(self, lane: Lane[Batch], pixels: Batch) -> bool:
        """Start a lane, and return whether there was the memory; the error, which holds some of it, is forgotten."""
        try:
            lane.submit(pixels)
        except torch.cuda.OutOfMemoryError:
            if self._size == 1:
                raise
            return False
        return True

    def _halve(self) -> None:
        self._lanes = []
        self._shrink()
        self._lanes = self._fitting_lanes()

    def _fitting_lanes(self) -> list[Lane[Batch]]:
        while True:
            try:
                return list(self._make_lanes(self._size))
            except torch.cuda.OutOfMemoryError:
                if self._size == 1:
                    raise
            self._shrink()

    def _shrink(self) -> None:
        self._size = max(1, self._size // 2)
        logger.warning("The device's memory doesn't suffice; going on with %d images at once.", self._size)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()  # what was started may still use memory that is given back here
            with contextlib.suppress(RuntimeError):  # it can't be given back after a recording that has failed
                torch.cuda.empty_cache()
