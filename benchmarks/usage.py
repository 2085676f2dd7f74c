"""Processor seconds of this process and all that it has started, by kind, sampled in a thread while something runs."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import numpy as np
import psutil

#: Of a worker that has no work yet, it doesn't show what it will be.
_TASKS = ("ray::IDLE", "ray::ReadReadUnit", "ray::MapBatches(commit_and_report)")
_UNKNOWN, _MAY_CHANGE = "", ("", "read and commit")
#: Longest time between two samples (seconds): with 200 processes, one takes 20 ms of a core.
_SAMPLE_EVERY_S = 2.0
#: This process; Ray's control store; on each node Ray's daemon and its agents; single actors of the run and of Ray Data
#: (signs of life, content, statistics); and processes that do a run's work.
KINDS = ("driver", "control store", "node daemons", "helper actors", "embed actors", "read and commit")


class Usage:
    """Adds up the processor time of a process tree; a context manager. Its own thread's time is left out."""

    def __init__(self) -> None:
        self._at: list[float] = []
        self._cpu: list[dict[str, float]] = []
        self._rss: list[int] = []
        self._seen: dict[psutil.Process, tuple[str, float]] = {}
        self._me = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Usage:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def between(self, begin: float, end: float) -> dict[str, float]:
        """Return the processor seconds of each kind between two times (seconds since the epoch)."""
        return {kind: self._at_times([one[kind] for one in self._cpu], begin, end) for kind in KINDS}

    def grown(self, begin: float, end: float) -> float:
        """Return by how many bytes this process's resident memory has grown between two times."""
        return self._at_times(self._rss, begin, end)

    @property
    def most_processes(self) -> int:
        """How many processes there were in all."""
        return len(self._seen)

    def _at_times(self, values: list[float] | list[int], begin: float, end: float) -> float:
        first, last = np.interp([begin, end], self._at, values)
        return float(last - first)

    def _loop(self) -> None:
        self._sample()
        while not self._ended.wait(_SAMPLE_EVERY_S):
            self._sample()
        self._sample()

    def _sample(self) -> None:
        for process in self._me.children(recursive=True):
            try:
                kind = self._seen[process][0] if process in self._seen else _UNKNOWN
                kind = kind if kind not in _MAY_CHANGE else _kind(" ".join(process.cmdline()))
                times = process.cpu_times()
                self._seen[process] = kind, times.user + times.system
            except psutil.Error:  # it has just ended; what it had used counts
                continue
        cpu = dict.fromkeys(KINDS, 0.0)
        for kind, seconds in self._seen.values():
            cpu[kind] += seconds
        cpu["driver"] = time.process_time() - time.thread_time()
        self._at.append(time.time())
        self._cpu.append(cpu)
        self._rss.append(self._me.memory_info().rss)


def _kind(command: str) -> str:
    """Return what a process is by its command line, which Ray's workers change to what they are doing."""
    program = command.partition(" ")[0]
    if "gcs_server" in program:
        return "control store"
    if "default_worker.py" in command or program in (
        "ray::IDLE",
        "ray::ReadReadUnit",
        "ray::MapBatches(commit_and_report)",
    ):
        return "read and commit"
    if "EmbedActor" in program:
        return "embed actors"
    return "helper actors" if program.startswith("ray::") and "Agent" not in program else "node daemons"
