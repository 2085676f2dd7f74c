"""Ray, quietly: connect to the cluster that RAY_ADDRESS names, or run one for this process and clean up after it."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.errors import ConfigError
from pipeline.exposure import require_private

#: Longest temp folder that leaves room for Ray's socket names within the 107 bytes of a Unix socket's address.
_LONGEST_TEMP_DIR = 40
_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 (the variable's name)


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
    return not ray.is_initialized() and not os.environ.get("RAY_ADDRESS")


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
    if ray.is_initialized():
        _require_private()
        yield Connection(dashboard=None, can_grow=True)
        return
    level = logging.INFO if verbose else logging.CRITICAL
    address = os.environ.get("RAY_ADDRESS")
    temp_dir = None if address else _short_temp_dir()
    on_terminate = signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None
    added_token = not address and not _has_token()
    if added_token:  # otherwise Ray writes one into the home folder
        os.environ[_TOKEN] = _own_token()
    try:
        options: dict[str, Any] = {"log_to_driver": verbose, "logging_level": level}
        try:
            if address:
                context = ray.init(address=address, **options)
            else:
                context = ray.init(address="local", include_dashboard=False, _temp_dir=temp_dir, **options)
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            where = f"the Ray cluster at RAY_ADDRESS={address}" if address else "a local Ray cluster"
            raise ConfigError(f"Expected to reach {where}: {error}") from error
        if on_terminate is not None:  # ray.init has put a handler of its own in its place
            signal.signal(signal.SIGTERM, on_terminate)
        try:
            _require_private(context.dashboard_url or "")
            dashboard = f"http://{context.dashboard_url}" if context.dashboard_url else None
            yield Connection(dashboard, can_grow=bool(address))
        finally:
            ray.shutdown()
    finally:
        if added_token:
            del os.environ[_TOKEN]
        if temp_dir:
            shutil.rmtree(temp_dir, ignore_errors=True)


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


@functools.cache
def _own_token() -> str:
    """Return a random token, for all clusters that this process starts: Ray reads it once in a process's life."""
    return secrets.token_hex(32)


def _has_token() -> bool:
    names = (_TOKEN, "RAY_AUTH_TOKEN_PATH")
    disabled = os.environ.get("RAY_AUTH_MODE", "token").lower() != "token"
    return disabled or any(os.environ.get(name) for name in names)


def _short_temp_dir() -> str:
    folder = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="ray-", dir=folder if len(folder) <= _LONGEST_TEMP_DIR else "/tmp")  # noqa: S108


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
