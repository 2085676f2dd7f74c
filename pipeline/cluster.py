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
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.errors import ConfigError
from pipeline.exposure import require_private

#: Longest temp folder that leaves room for Ray's socket names within the 107 bytes of a Unix socket's address.
_LONGEST_TEMP_DIR = 40
#: Tries to remove that folder, a tenth of a second apart.
_REMOVALS = 30
_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 (the variable's name)
#: Ray ends worker processes that were idle for a second, while a network loads for instance, and soon needs new ones,
#: which take seconds of processor time to start.
_SYSTEM_CONFIG = {"idle_worker_killing_time_threshold_ms": 120_000}
_INIT_ERRORS = (RayError, ConnectionError, RuntimeError, ValueError)


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
    early = _LocalCluster(verbose)
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
    if _early:
        local: _LocalCluster | None = _early.pop()
    elif ray.is_initialized():
        _require_private()
        yield Connection(dashboard=None, can_grow=True)
        return
    else:
        local = None if os.environ.get("RAY_ADDRESS") else _LocalCluster(verbose)
    try:
        dashboard = None
        if local is None:
            dashboard = _join(os.environ["RAY_ADDRESS"], verbose)
        else:
            local.wait()
        _require_private(dashboard or "")
        yield Connection(f"http://{dashboard}" if dashboard else None, can_grow=local is None)
    finally:
        if local is None:
            ray.shutdown()
        else:
            local.stop()


def _join(address: str, verbose: bool) -> str | None:
    """Connect to a running cluster, and return its dashboard's address."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    on_terminate = signal.getsignal(signal.SIGTERM) if in_main_thread else None
    try:
        context = ray.init(address=address, **_logging(verbose))
    except _INIT_ERRORS as error:
        raise ConfigError(f"Expected to reach the Ray cluster at RAY_ADDRESS={address}: {error}") from error
    if on_terminate is not None:  # ray.init has put a handler of its own in its place
        signal.signal(signal.SIGTERM, on_terminate)
    return context.dashboard_url


class _LocalCluster:
    """A cluster of this machine alone, which a thread of its own starts and ends.

    It has to be one thread: Ray's processes are told to die with the thread that started them (PR_SET_PDEATHSIG).
    """

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._error: Exception | None = None
        self._up, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._live, name="local Ray cluster", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it is up.

        Raises:
            ConfigError: It can't be started.
        """
        self._up.wait()
        if isinstance(self._error, _INIT_ERRORS):
            raise ConfigError(f"Expected to start a local Ray cluster: {self._error}") from self._error
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End it, and remove what it has left."""
        self._done.set()
        self._thread.join()

    def _live(self) -> None:
        temp_dir, added_token = _short_temp_dir(), not _has_token()
        if added_token:  # otherwise Ray writes one into the home folder
            os.environ[_TOKEN] = _own_token()
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                _temp_dir=temp_dir,
                _system_config=dict(_SYSTEM_CONFIG),  # Ray adds to it where this cluster spills
                **_logging(self._verbose),
            )
            self._up.set()
            self._done.wait()
        except Exception as error:  # for the thread that waits
            self._error = error
        finally:
            self._up.set()
            ray.shutdown()
            if added_token:
                del os.environ[_TOKEN]
            _remove(temp_dir)


#: What `starting` has started and `connect` has not taken yet.
_early: list[_LocalCluster] = []


def _logging(verbose: bool) -> dict[str, Any]:
    return {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.CRITICAL}


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


def _remove(folder: str) -> None:
    """Remove a folder in which the last of Ray's processes may still be writing."""
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)


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
