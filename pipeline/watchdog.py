"""The watchdog: ends a pass over the units in which nothing moves any more, whatever holds it up.

Ray Data has a guard of its own (``execution_no_progress_timeout_s``), which sees blocks: a large unit on a slow
processor would look like a stall to it. This one sees images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.data._internal.stats import Timer

#: Seconds without a sign of life that are enough once a node is gone: what waits for that node waits for ever.
_AFTER_A_LOSS_S = 60.0


class Stalled(Exception):
    """Nothing moved for too long; raised through Ray Data's executor."""


class Watchdog:
    """Knows when something moved last.

    Args:
        limit_s: Longest time (seconds) without a sign of life.
        clock: Tells the time (seconds).
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s, self._clock = limit_s, clock
        self._last: dict[str, Hashable] = {}
        self.start(frozenset())

    def start(self, nodes: frozenset[str]) -> None:
        """Begin a pass, on the nodes that are there now."""
        self.stalled_s: float | None = None
        self.lost_a_node = False
        self._moved_at, self._nodes, self._limit_now_s = self._clock(), nodes, self._limit_s

    def note(self, what: str, sign: Hashable) -> None:
        """Take a sign of life; what was the same before is none."""
        if self._last.get(what, self) != sign:
            self._last[what] = sign
            self._moved_at = self._clock()

    def note_nodes(self, nodes: frozenset[str]) -> None:
        """Take note of the nodes that are there; one that has come is a sign of life."""
        if self._nodes - nodes:
            self.lost_a_node = True
            self._limit_now_s = min(self._limit_s, _AFTER_A_LOSS_S)
        if nodes - self._nodes:
            self._moved_at = self._clock()
        self._nodes = self._nodes | nodes

    def check(self) -> None:
        """Raise if nothing moved for too long.

        Raises:
            Stalled: Nothing did.
        """
        quiet_s = self._clock() - self._moved_at
        if quiet_s > self._limit_now_s:
            self.stalled_s = quiet_s
            raise Stalled(f"Nothing moved for {quiet_s:.0f} s.")

    def callback(self) -> type[ExecutionCallback]:
        """Return what Ray Data's executor calls at each of its steps."""
        watchdog = self

        class Check(ExecutionCallback):
            def on_execution_step(self, executor: StreamingExecutor) -> None:
                try:
                    watchdog.check()
                except Stalled:
                    _stop_by_force(executor)
                    raise

        return Check


def _stop_by_force(executor: StreamingExecutor) -> None:
    """End the processes at work: Ray Data would ask them to stop, which one that hangs doesn't hear."""
    for operator in executor._topology or ():
        operator.shutdown(Timer(), force=True)  # type: ignore[no-untyped-call]
