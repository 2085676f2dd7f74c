"""How long an engine was busy that several units share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import count


class Busy:
    """Tells how long each unit was in the engine; a moment in which several were there counts for one of them only.

    So what it tells of all units adds up to the time in which any of them was there.

    Args:
        clock: Tells the time (seconds).
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._inside: dict[int, Stay] = {}
        self._counted_until, self._numbers = 0.0, count()

    def stay(self) -> Stay:
        """Return what counts the seconds of a unit that comes now."""
        return Stay(self, next(self._numbers))

    def _come(self, stay: Stay) -> None:
        with self._lock:
            self._count()
            self._inside[stay.number] = stay

    def _go(self, stay: Stay) -> None:
        with self._lock:
            self._count()
            del self._inside[stay.number]

    def _count(self) -> None:
        """Give the seconds since the last change to the earliest of the units inside."""
        now = self._clock()
        if self._inside:
            self._inside[min(self._inside)].seconds += now - self._counted_until
        self._counted_until = now


class Stay:
    """A unit's time in the engine: that in this context.

    Attributes:
        number: Of units that are inside together, the one with the lowest has the seconds.
        seconds: Those that count for this unit.
    """

    def __init__(self, busy: Busy, number: int) -> None:
        self._busy, self.number, self.seconds = busy, number, 0.0

    def __enter__(self) -> None:
        self._busy._come(self)

    def __exit__(self, *error: object) -> None:
        self._busy._go(self)
