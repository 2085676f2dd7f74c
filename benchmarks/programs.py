"""Run a program, and measure it from outside: seconds from command to exit, peak memory of all its processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

_SAMPLE_EVERY_S = 0.5
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Run:
    """A program that has run.

    Args:
        started: When (seconds since the epoch).
        seconds: From its command to its exit.
        peak_bytes: Most memory of all its processes together, what they share counted once (PSS).
        cpu_s: Processor seconds of all its processes.
        told: The last line it printed, as JSON.
    """

    started: float
    seconds: float
    peak_bytes: int
    cpu_s: float
    told: dict[str, Any]


def run(module: str, *arguments: str, log: Path, environment: dict[str, str] | None = None) -> Run:
    """Run a module of Python, its messages going to a file.

    Raises:
        SystemExit: It failed.
    """
    command = [sys.executable, "-m", module, *arguments]
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "1"}
    with log.open("w") as messages:
        started, clock = time.time(), time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env=os.environ | quiet | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
        )
        watch = _Watch(process.pid)
        output = process.communicate()[0]
        seconds = time.perf_counter() - clock
        watch.stop()
    if process.returncode:
        raise SystemExit(f"{module} ended with {process.returncode}:\n{output}\n{log.read_text()[-4000:]}")
    return Run(started, seconds, watch.peak_bytes, watch.cpu_s, json.loads(output.strip().splitlines()[-1]))


def busy_s() -> float:
    """Return the processor seconds that all programs of this machine have used since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


@dataclass(frozen=True, slots=True)
class Commits:
    """What a run's committed units tell.

    Args:
        first_s: Seconds from the command to the first one.
        images: Images in all.
        steady_images: Images after the first one.
        images_per_s: Their rate, from the first one to the last; None where there is just one.
    """

    first_s: float
    images: int
    steady_images: int
    images_per_s: float | None


def commits(table: Path, started: float) -> Commits:
    """Return what a table's data files tell of the run that made all of them."""
    units = sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in table.glob("data/*.parquet"))
    (first, rows), *others = units
    steady = sum(rows for _, rows in others)
    rate = steady / (others[-1][0] - first) if others else None
    return Commits(first - started, rows + steady, steady, rate)


class _Watch:
    """Adds up what the processes of a tree use, in a thread."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._cpu: dict[tuple[int, float], float] = {}
        self._root = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    @property
    def cpu_s(self) -> float:
        return sum(self._cpu.values())

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._ended.wait(_SAMPLE_EVERY_S):
            try:
                tree = [self._root, *self._root.children(recursive=True)]
            except psutil.Error:
                return
            self.peak_bytes = max(self.peak_bytes, sum(map(self._sample, tree)))

    def _sample(self, process: psutil.Process) -> int:
        try:
            times = process.cpu_times()
            self._cpu[process.pid, process.create_time()] = times.user + times.system
            return int(process.memory_full_info().pss)
        except psutil.Error:  # it has just ended
            return 0
