"""Counts images across processes, finer than by units: an actor that the engines add to and the driver reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

#: Longest time in seconds that an embed actor keeps a count to itself.
_REPORT_EVERY_S = 0.5


@ray.remote(num_cpus=0)
class Counter:
    """Counts the images that are through the engine. An actor, since the engines are in other processes."""

    def __init__(self) -> None:
        self._images = 0

    def add(self, images: int) -> None:
        """Count some more."""
        self._images += images

    def value(self) -> int:
        """Return the count."""
        return self._images


class CountReporter:
    """Adds up counts in an embed actor and sends them to the counter a few times a second at most."""

    def __init__(self, counter: Any) -> None:
        self._counter, self._waiting, self._sent_at = counter, 0, 0.0

    def __call__(self, images: int) -> None:
        """Count some images."""
        self._waiting += images
        now = time.monotonic()
        if now - self._sent_at >= _REPORT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Send what has not been sent."""
        if self._waiting:
            self._counter.add.remote(self._waiting)
            self._waiting, self._sent_at = 0, time.monotonic()


@contextmanager
def watch(counter: Any, report: Callable[[int], None], every_s: float = 0.5) -> Iterator[None]:
    """Call ``report`` with the counter's value again and again during a block, from a thread of its own."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(every_s):
            try:
                report(ray.get(counter.value.remote(), timeout=10))
            except Exception:  # progress is for people: its loss must not touch the run  # noqa: S112
                continue

    thread = threading.Thread(target=loop, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=11)
