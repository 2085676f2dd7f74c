"""A Ray cluster of several nodes on this machine, each with more CPUs and GPUs than there are."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from ray.cluster_utils import Cluster

#: What each node is said to have: a server with eight accelerators, of whose CPUs their actors take half.
NODE_GPUS, NODE_CPUS = 8, 8
_SYSTEM_CONFIG = {
    # All nodes share two cores: one that waits for them must not count as gone, nor idle processes be started anew.
    "health_check_timeout_ms": 60_000,
    "health_check_failure_threshold": 20,
    "idle_worker_killing_time_threshold_ms": 600_000,
    "prestart_worker_first_driver": False,  # a process for each CPU of each node, before anything asks for one
}
_OBJECT_STORE_BYTES = 2**28


class Nodes:
    """A running cluster, whose head does no work."""

    def __init__(self, cluster: Any) -> None:
        self._cluster, self._count = cluster, 0

    def grow_to(self, num_nodes: int) -> None:
        """Add the nodes that are missing."""
        while self._count < num_nodes:
            self._cluster.add_node(
                num_cpus=NODE_CPUS, num_gpus=NODE_GPUS, object_store_memory=_OBJECT_STORE_BYTES, include_dashboard=False
            )
            self._count += 1


def with_a_token(module: str) -> None:
    """Begin the program anew, if need be, with the environment that Ray reads as soon as it is imported."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], os.environ | variables)


@contextlib.contextmanager
def pretended_nodes() -> Iterator[Nodes]:
    """Start a cluster of a head alone; what connects to a cluster within the block uses it."""
    folder = tempfile.mkdtemp(prefix="r-", dir="/tmp")  # Ray's sockets need a short path
    os.environ["RAY_TMPDIR"] = folder
    cluster = Cluster()
    try:
        cluster.add_node(
            num_cpus=0,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _system_config=_SYSTEM_CONFIG,
        )
        os.environ["RAY_ADDRESS"] = cluster.address
        yield Nodes(cluster)
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        cluster.shutdown()
        del os.environ["RAY_TMPDIR"]
        shutil.rmtree(folder, ignore_errors=True)
