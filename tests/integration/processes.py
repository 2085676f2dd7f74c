"""Jobs as processes of their own, in surroundings where every stray file shows."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pipeline import failpoints

ROOT = Path(__file__).parents[2]


@dataclass
class Surroundings:
    """Empty folders for a process's home, working directory and temporary files.

    The folder for temporary files has a short name, since Ray's sockets lie in it. The cache is that of this process,
    with the networks that other tests have converted, unless it is set.
    """

    folder: Path
    temporary: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="t-", dir="/tmp")))
    variables: dict[str, str] = field(default_factory=dict)
    cache: Path = field(default_factory=lambda: Path(os.environ["XDG_CACHE_HOME"]))
    prefix: tuple[str, ...] = ()  # a command that runs the job's command

    def __post_init__(self) -> None:
        for name in ("home", "work"):
            (self.folder / name).mkdir(parents=True)

    def environment(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "LD_LIBRARY_PATH") if key in os.environ}
        return {
            **kept,
            "HOME": str(self.folder / "home"),
            "XDG_CACHE_HOME": str(self.cache),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.variables,
        }

    def set_failpoints(self, *failures: dict[str, Any]) -> Path:
        """Make the processes that are started from now on fail; see `pipeline.failpoints`.

        Returns:
            The folder in which the hits are counted.
        """
        folder = self.folder / f"hits-{secrets.token_hex(4)}"
        folder.mkdir()
        self.variables[failpoints.VARIABLE] = json.dumps([{"folder": str(folder), **failure} for failure in failures])
        return folder

    def start(self, job: str, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.prefix, sys.executable, "-m", f"jobs.{job}", *map(str, arguments)],
            cwd=self.folder / "work",
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell without job control starts background commands deaf to Ctrl-C, and that would be inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, job: str, *arguments: object, timeout_s: float = 200) -> tuple[int, str, str]:
        process = self.start(job, *arguments)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, out, err

    def stray_files(self) -> list[str]:
        """Return what lies in the home folder, the working directory and the temporary folder."""
        folders = [self.folder / "home", self.folder / "work", self.temporary]
        return [str(path) for folder in folders for path in folder.rglob("*")]


def processes_of(surroundings: Surroundings) -> list[psutil.Process]:
    """Return all processes that were started in some surroundings, by the folder for temporary files that they have."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(surroundings.temporary):
                found.append(process)
        except psutil.Error:  # somebody else's, or gone
            continue
    return found


def title(process: psutil.Process) -> str:
    """Return what a process calls itself, as Ray's do ("ray::..."); nothing where it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
