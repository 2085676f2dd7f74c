"""A Ray cluster of several nodes on this machine that come and go, in a process of its own.

Each node has its own folder for the hits of failpoints, so what was logged there was done there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline import failpoints
from tests.integration.processes import ROOT, Surroundings, processes_of

#: CPUs of a node that works, as Ray counts them; the machine's own may be fewer.
NODE_CPUS = 2
#: A node that is gone is noticed after six seconds; Ray's own settings take half a minute.
_SYSTEM_CONFIG = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 6,  # fewer, and a node that only waits for a processor counts as gone
    # Blocks lie on the nodes that made them and are lost with these, as those of any real unit; small ones would be
    # kept by the driver.
    "max_direct_call_object_size": 1024,
    # Else, processes that were idle for a second are ended, and nearly each task of these slow runs starts a new one,
    # which takes some four seconds of a processor that all nodes share.
    "idle_worker_killing_time_threshold_ms": 120_000,
}


@dataclass
class Nodes:
    """A running cluster, as seen from a test."""

    surroundings: Surroundings
    process: subprocess.Popen[str]
    address: str = ""

    def add(self, name: str, num_cpus: int = NODE_CPUS, *failures: dict[str, Any]) -> None:
        """Start a node; it has joined the cluster when this returns."""
        folder = self.folder(name)
        folder.mkdir()
        failures = tuple({"folder": str(folder), **failure} for failure in failures)
        variables = {failpoints.VARIABLE: json.dumps(failures)}
        self.address = self._ask({"add": name, "num_cpus": num_cpus, "env_vars": variables})["address"]

    def remove(self, name: str) -> None:
        """Lose a node: its processes are killed."""
        self._ask({"remove": name})

    def folder(self, name: str) -> Path:
        """Return where the failpoints of a node count their hits."""
        return self.surroundings.folder / f"node-{name}"

    def units(self, name: str, point: str) -> Counter[str]:
        """Return which units a node's log names at a failpoint, and how often."""
        log = self.folder(name) / "log"
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return Counter(unit for where, unit, _ in lines if where == point)

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the cluster's process has ended: {self.process.wait()}"
        value: dict[str, Any] = json.loads(answer)
        return value


@contextmanager
def cluster_of_nodes(surroundings: Surroundings) -> Iterator[Nodes]:
    """Start a cluster whose head does no work; jobs that the surroundings start from then on use it."""
    surroundings.variables.update(
        RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=os.urandom(16).hex(), RAY_USAGE_STATS_ENABLED="0"
    )
    with open(surroundings.folder / "nodes.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nodes"],
            cwd=ROOT,
            env=surroundings.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        nodes = Nodes(surroundings, process)
        try:
            nodes.add("head", 0)
            surroundings.variables["RAY_ADDRESS"] = nodes.address
            yield nodes
        finally:
            surroundings.variables.pop("RAY_ADDRESS", None)
            try:
                process.communicate(timeout=60)  # the end of its input is the end of the cluster
            finally:
                _, left = psutil.wait_procs(processes_of(surroundings), timeout=30)  # workers notice a moment later
                for each in left:
                    each.kill()
                psutil.wait_procs(left, timeout=10)
    assert left == [], "the cluster left processes behind"


def main() -> None:
    """Add and remove nodes as the lines of standard input say."""
    from ray.cluster_utils import Cluster

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever Ray prints
    cluster = Cluster()
    nodes: dict[str, Any] = {}
    for line in sys.stdin:
        command = json.loads(line)
        if name := command.pop("add", None):
            head = {} if nodes else {"include_dashboard": False, "_system_config": _SYSTEM_CONFIG}
            nodes[name] = cluster.add_node(**head, **command)
        else:
            cluster.remove_node(nodes.pop(command["remove"]), allow_graceful=False)
        answers.write(json.dumps({"address": cluster.address}) + "\n")
    cluster.shutdown()


if __name__ == "__main__":
    main()
