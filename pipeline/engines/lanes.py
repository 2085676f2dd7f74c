"""Lanes of a device that several callers share: who came first sends batches first, and the next right after its last.

So the device has work also while one caller's last batches are at work. No lane waits for its caller to fetch a result:
whoever needs a lane waits for the batch that has been at work longest, puts its result aside, and takes that lane.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from pipeline.engines.base import Embeddings
from pipeline.images import Pixels

BatchT = TypeVar("BatchT", contravariant=True)


class Lane(Protocol[BatchT]):
    """One batch's way through a device, with buffers of its own, so that other lanes can be at work meanwhile."""

    def submit(self, pixels: BatchT) -> None:
        """Start on as many images as the lane is for, or fewer where it can, and don't wait for them."""

    def collect(self) -> Embeddings:
        """Wait for what was started, and return it: float32 of shape (n, D). After an error the lane can go on."""


class SharedLanes:
    """Sends the batches of several threads through the same lanes, as many at a time as there are lanes.

    Args:
        lanes: All alike, at least one.
    """

    def __init__(self, lanes: Sequence[Lane[Pixels]]) -> None:
        self._free = deque(lanes)
        self._at_work: deque[_AtWork] = deque()  # of all callers, in the order in which they were started
        self._turns = _Turns()

    def embed_batches(self, batches: Iterable[Pixels]) -> Iterator[Embeddings]:
        """Embed a caller's batches; of several in one thread, each must be finished or closed before the next begins.

        Args:
            batches: What the lanes take.

        Yields:
            float32 of shape (B, D) for each batch, in order.
        """
        mine: deque[_AtWork] = deque()
        try:
            with self._turns.turn():
                for pixels in batches:
                    mine.append(self._started(pixels))
                    while mine[0].is_done:
                        yield mine.popleft().result()
            while mine:
                yield mine.popleft().result()
        finally:
            for batch in mine:  # where nobody wants the other results
                batch.finish()

    def _started(self, pixels: Pixels) -> _AtWork:
        """Start a batch, as soon as there is a lane for it; only who has the turn may."""
        while self._at_work and (not self._free or self._at_work[0].is_done):
            self._at_work[0].finish()  # whatever it is that interrupts this, its lane isn't lost
            self._at_work.popleft()
        lane = self._free.popleft()
        try:
            lane.submit(pixels)
        except BaseException:
            self._free.append(lane)
            raise
        started = _AtWork(lane, self._free)
        self._at_work.append(started)
        return started


class _AtWork:
    """A batch in a lane; the lane is free again once somebody has waited for it: its caller, or who needs the lane."""

    def __init__(self, lane: Lane[Pixels], free: deque[Lane[Pixels]]) -> None:
        self._lane, self._free, self._lock = lane, free, threading.Lock()
        self._outcome: Embeddings | Exception | None = None

    @property
    def is_done(self) -> bool:
        """Return whether somebody has waited for it."""
        return self._outcome is not None

    def finish(self) -> None:
        """Wait until it is done, and let others have the lane. An error is its caller's."""
        with self._lock:
            if self._outcome is None:
                try:
                    self._outcome = self._lane.collect()
                except Exception as error:  # whatever it is, `result` raises it
                    self._outcome = error
                self._free.append(self._lane)

    def result(self) -> Embeddings:
        """Wait for it, and return its embeddings, or raise what went wrong."""
        self.finish()
        assert self._outcome is not None, "it is finished"
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class _Turns:
    """Lets one thread in at a time, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[object] = deque()
        self._moved = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn, and have it for the length of a block."""
        ticket = object()
        with self._moved:
            self._waiting.append(ticket)
        try:
            with self._moved:
                self._moved.wait_for(lambda: self._waiting[0] is ticket)
            yield
        finally:
            with self._moved:
                self._waiting.remove(ticket)
                self._moved.notify_all()
