"""Ray, quietly: connect to the cluster that RAY_ADDRESS names, or run one for this process and clean up after it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray

from pipeline.errors import ConfigError
from pipeline.exposure import require_private
from pipeline.local_cluster import INIT_ERRORS, LocalCluster, logging_options

#: What `starting` has started and `connect` has not taken yet.
_early: list[LocalCluster] = []


@dataclass(frozen=True, slots=True)
class Resources:
    """What a cluster has now, in Ray's units.

    Args:
        num_cpus: CPUs of all nodes.
        num_gpus: GPUs of all nodes.
        cpus_per_node: CPUs of the smallest node that has any, at least 1.
        num_cpu_nodes: Nodes that have CPUs, at least 1.
        nodes: The nodes' ids.
    """

    num_cpus: float
    num_gpus: float
    cpus_per_node: float
    num_cpu_nodes: int
    nodes: frozenset[str] = frozenset()


def is_local() -> bool:
    """Return whether `connect` would start a cluster of this machine alone."""
    return bool(_early) or not (ray.is_initialized() or os.environ.get("RAY_ADDRESS"))


@dataclass(frozen=True, slots=True)
class Connection:
    """A Ray cluster that this process is connected to.

    Args:
        dashboard: Address of Ray's dashboard, None where there is none.
        can_grow: Whether nodes may join: not where the cluster is this machine alone.
    """

    dashboard: str | None
    can_grow: bool


@contextlib.contextmanager
def starting(verbose: bool = False) -> Iterator[None]:
    """Start what `connect` would start, in the background, for the first `connect` within a block.

    It takes seconds, in which this process can import and load what it needs. Where `connect` would start nothing, or
    is not called, the block leaves nothing behind either.
    """
    if not is_local():
        yield
        return
    _quieten(verbose)
    early = LocalCluster(verbose)
    _early.append(early)
    try:
        yield
    finally:
        if early in _early:
            _early.remove(early)
            early.stop()


@contextlib.contextmanager
def connect(verbose: bool = False) -> Iterator[Connection]:
    """Provide a Ray cluster for the length of a block.

    One that the process is already connected to is used as it is and left running. Else RAY_ADDRESS, as ``ray job
    submit`` sets it, names the cluster; without it a cluster of this machine alone is started, with its own random
    token, in a temporary folder that is removed at the end.

    Args:
        verbose: Show Ray's own log.

    Yields:
        What the process is connected to.

    Raises:
        ConfigError: The cluster that RAY_ADDRESS names can't be reached; or anyone can reach the cluster, without a
            token (see `pipeline.exposure`).
    """
    _quieten(verbose)
    if is_local():
        local = _early.pop() if _early else LocalCluster(verbose)
        try:
            local.wait()
            _require_private()
            yield Connection(dashboard=None, can_grow=False)
        finally:
            local.stop()
    elif ray.is_initialized():
        _require_private()
        yield Connection(dashboard=None, can_grow=True)
    else:
        try:
            dashboard = _join(os.environ["RAY_ADDRESS"], verbose)
            _require_private(dashboard or "")
            yield Connection(f"http://{dashboard}" if dashboard else None, can_grow=True)
        finally:
            ray.shutdown()


def _join(address: str, verbose: bool) -> str | None:
    """Connect to a running cluster, and return its dashboard's address."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    on_terminate = signal.getsignal(signal.SIGTERM) if in_main_thread else None
    try:
        context = ray.init(address=address, **logging_options(verbose))
    except INIT_ERRORS as error:
        raise ConfigError(f"Expected to reach the Ray cluster at RAY_ADDRESS={address}: {error}") from error
    if on_terminate is not None:  # ray.init has put a handler of its own in its place
        signal.signal(signal.SIGTERM, on_terminate)
    return context.dashboard_url


def _require_private(dashboard: str = "") -> None:
    hosts = [str(node["NodeManagerAddress"]) for node in _alive_nodes()]
    host = dashboard.rpartition(":")[0].strip("[]")
    require_private(ray.get_runtime_context().gcs_address, [*hosts, host] if host else hosts)


def _quieten(verbose: bool) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not verbose:
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # a run's own errors say what matters


def resources() -> Resources:
    """Return what the connected cluster has now."""
    nodes = _alive_nodes()
    cpus = [cpus for node in nodes if (cpus := node["Resources"].get("CPU", 0.0)) > 0]
    return Resources(
        num_cpus=sum(cpus),
        num_gpus=sum(node["Resources"].get("GPU", 0.0) for node in nodes),
        cpus_per_node=max(1.0, min(cpus, default=1.0)),
        num_cpu_nodes=max(1, len(cpus)),
        nodes=frozenset(node["NodeID"] for node in nodes),
    )


def _alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
