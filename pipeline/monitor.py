"""What the processes of a run tell the driver while they work: they report to the companion, and the driver asks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import ray

#: Longest time in seconds that a reporter keeps a count to itself.
_REPORT_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Signs:
    """Signs of life of a run; any change is one.

    Args:
        read: Images read and decoded.
        embedded: Images through the engine, rejects included.
        reading: Names of the units whose reading has begun and not ended; those of dead processes stay.
    """

    read: int = 0
    embedded: int = 0
    reading: frozenset[str] = frozenset()


class Monitor:
    """Collects the signs of life, in the run's companion (`pipeline.companion`)."""

    def __init__(self) -> None:
        self._read = self._embedded = 0
        self._reading: set[str] = set()

    def add(self, read: int = 0, embedded: int = 0) -> None:
        """Count some more images."""
        self._read += read
        self._embedded += embedded

    def begin(self, unit: str) -> None:
        """Note that a unit is being read."""
        self._reading.add(unit)

    def end(self, unit: str) -> None:
        """Note that a unit is read."""
        self._reading.discard(unit)

    def forget(self) -> None:
        """Forget which units were being read, before they are all tried again."""
        self._reading.clear()

    def signs(self) -> Signs:
        """Return what has been noted."""
        return Signs(self._read, self._embedded, frozenset(self._reading))


class Reporter:
    """Adds up what the threads of a process get done, and tells the companion a few times a second at most.

    Args:
        companion: The handle of the run's companion.
        what: What is counted, an argument of `Monitor.add`.
    """

    def __init__(self, companion: Any, what: Literal["read", "embedded"]) -> None:
        self._companion, self._what, self._waiting, self._sent_at = companion, what, 0, 0.0
        self._lock = threading.Lock()

    def __call__(self, images: int) -> None:
        """Count some images."""
        with self._lock:
            self._waiting += images
            is_time = time.monotonic() - self._sent_at >= _REPORT_EVERY_S
        if is_time:
            self.flush()

    def flush(self) -> None:
        """Send what has not been sent."""
        with self._lock:
            waiting, self._waiting = self._waiting, 0
            self._sent_at = time.monotonic() if waiting else self._sent_at
        if waiting:
            self._companion.add.remote(**{self._what: waiting})


class ReadReporter:
    """Tells the companion how the reading of a unit goes on; see `pipeline.stages.read.Listener`."""

    def __init__(self, companion: Any) -> None:
        self._companion = companion

    def begin(self, unit: str) -> None:
        """Note that a unit is being read."""
        self._read = Reporter(self._companion, "read")  # not before: this object travels to where the unit is read
        self._companion.begin.remote(unit)

    def images(self, count: int) -> None:
        """Count images that are read."""
        self._read(count)

    def end(self, unit: str) -> None:
        """Note that a unit is read."""
        self._read.flush()
        self._companion.end.remote(unit)


@contextmanager
def watch(companion: Any, listener: Callable[[Signs], None], every_s: float = 0.5) -> Iterator[None]:
    """Call ``listener`` with the signs of life again and again during a block, from a thread of its own."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(every_s):
            try:
                listener(ray.get(companion.signs.remote(), timeout=10))
            except Exception:  # a lost answer is no news; the watchdog bites if none comes at all  # noqa: S112
                continue

    thread = threading.Thread(target=loop, name="monitor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=11)
