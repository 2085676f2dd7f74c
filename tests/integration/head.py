"""A Ray head as `ray start` makes it, in processes of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Head:
    """A running head.

    Args:
        address: Host and port of its control store, for RAY_ADDRESS.
        dashboard: Its dashboard's URL.
        environment: That of its processes, in which commands reach it.
    """

    address: str
    dashboard: str
    environment: dict[str, str]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has, each another one: they are taken together."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextmanager
def ray_head(folder: Path, **variables: str) -> Iterator[Head]:
    """Start a head, and end it with all that it has started.

    Args:
        folder: Where its output goes.
        variables: Of its environment, beside this process's own that don't concern Ray.
    """
    temporary = tempfile.mkdtemp(prefix="r-", dir="/tmp")
    port, dashboard, agent, client = free_ports(4)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(folder),  # a token in the user's own home would be taken
        "RAY_USAGE_STATS_ENABLED": "0",
        **variables,
    }
    command = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2"),
        *(f"--port={port}", f"--dashboard-port={dashboard}"),
        # Another cluster on this machine has the ports that Ray takes by default.
        *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
        *("--dashboard-host=127.0.0.1", f"--temp-dir={temporary}", "--disable-usage-stats"),
    ]
    log = folder / "ray.log"
    with open(log, "w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            address = wait_for_address(Path(temporary, "ray_current_cluster"), process, log)
            yield Head(address, f"http://127.0.0.1:{dashboard}", environment)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # Ray's processes are in the group of their own that it started
            process.wait()
            shutil.rmtree(temporary, ignore_errors=True)


def wait_for_address(file: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    """Return what Ray writes into a file once a head is up: its control store's address."""
    for _ in range(600):
        address = file.read_text().strip() if file.exists() else ""
        if address:
            return address
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    raise AssertionError(log.read_text())
