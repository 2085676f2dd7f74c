"""A disk of a few kB that gets full: a tmpfs, seen by the commands that are run on it and by nobody else."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallDisk:
    """A tmpfs in a mount namespace of its own, which goes with its process.

    Args:
        place: Where a command of ``prefix`` sees it.
        process: The process that keeps the namespace.
    """

    place: Path
    process: int

    @property
    def seen(self) -> Path:
        """Where everybody else sees it."""
        return Path(f"/proc/{self.process}/root{self.place}")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command where the disk is."""
        user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        return ("nsenter", f"--target={self.process}", *user, "--mount")

    def resize(self, size: str) -> None:
        """Make it larger or smaller."""
        options = ("mount", "-t", "tmpfs", "-o", f"remount,size={size}", "tmpfs", str(self.place))
        subprocess.run([*self.prefix, *options], check=True, capture_output=True)


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[SmallDisk]:
    """Mount a disk of some size on a new folder.

    As root, or with a user namespace; on a machine that has neither, the test fails rather than looks like a success.
    """
    if sys.platform != "linux":
        pytest.skip("a small disk needs Linux: tmpfs and mount namespaces")
    place.mkdir(parents=True)
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    script = f"mount -t tmpfs -o size={size} tmpfs {shlex.quote(str(place))} && echo mounted && exec sleep infinity"
    process = subprocess.Popen(
        ["unshare", *user, "--mount", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "mounted\n":
            pytest.fail(
                "Expected to mount a tmpfs, as root or by `unshare --map-root-user`. In a container, give it "
                f"CAP_SYS_ADMIN; else allow user namespaces, or run pytest -m 'not faults'. {process.stderr.read()}"
            )
        yield SmallDisk(place, process.pid)
    finally:
        process.kill()
        process.communicate()
