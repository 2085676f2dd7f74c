"""A Ray cluster of this machine alone, for the length of a run, that leaves nothing behind."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import ray
from ray._private import node as ray_node
from ray._private import utils as ray_utils
from ray.exceptions import RayError

from pipeline.errors import ConfigError
from pipeline.ray_details import replaced

#: Longest temp folder that leaves room for Ray's socket names within the 107 bytes of a Unix socket's address.
_LONGEST_TEMP_DIR = 40
#: Tries to remove the folder, a tenth of a second apart.
_REMOVALS = 30
_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 (the variable's name)
#: Ray ends worker processes that were idle for a second, while a network loads for instance, and soon needs new ones,
#: which take seconds of processor time to start. And it keeps what nobody needs any more for another second, to free a
#: hundred objects at a time: at some units a second, of which each takes new pages, several units too many. It reports
#: what becomes of each task, and collects metrics, for a dashboard that isn't there.
_SYSTEM_CONFIG: dict[str, Any] = {
    "idle_worker_killing_time_threshold_ms": 120_000,
    "free_objects_batch_size": 1,
    "task_events_report_interval_ms": 0,
    "enable_metrics_collection": False,
}
#: What `ray.init` raises.
INIT_ERRORS = (RayError, ConnectionError, RuntimeError, ValueError)


class _BareNode(ray_node.Node):
    """A head node that starts nothing that a cluster of one machine, for one run, has no use for.

    Those are three processes of some seconds to start: the autoscaler, the forwarding of logs that nobody reads, and a
    dashboard that, turned off, collects usage statistics; the third one keeps the others waiting. And the node's agent,
    for which Ray's workers wait, goes without the dashboard's part, as where that isn't installed.
    """

    forwards_logs = False

    def start_monitor(self) -> None:
        """Start no autoscaler."""

    def start_log_monitor(self) -> None:
        """Start it only where Ray's log is shown."""
        if self.forwards_logs:
            super().start_log_monitor()  # type: ignore[no-untyped-call]

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """Start no dashboard."""


def _bare_node(forwards_logs: bool) -> contextlib.AbstractContextManager[None]:
    """Let `ray.init`, which has no options for it, start a `_BareNode` within a block."""
    node = type("Node", (_BareNode,), {"forwards_logs": forwards_logs})
    return replaced(
        (ray_node, "Node", node),
        (ray_utils, "get_dashboard_dependency_error", lambda: ImportError("not wanted")),
    )


class LocalCluster:
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
        if isinstance(self._error, INIT_ERRORS):
            raise ConfigError(f"Expected to start a local Ray cluster: {self._error}") from self._error
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End it, and remove what it has left."""
        self._done.set()
        self._thread.join()

    def _live(self) -> None:
        try:
            with _token(), _temp_dir() as temp_dir:
                self._run(temp_dir)
        except Exception as error:  # for the thread that waits
            self._error = error
        finally:
            self._up.set()

    def _run(self, temp_dir: str) -> None:
        try:
            with _bare_node(forwards_logs=self._verbose):
                ray.init(
                    address="local",
                    include_dashboard=False,
                    _temp_dir=temp_dir,
                    _system_config=dict(_SYSTEM_CONFIG),  # Ray adds to it where this cluster spills
                    **logging_options(self._verbose),
                )
            self._up.set()
            self._done.wait()
        finally:
            ray.shutdown()


def logging_options(verbose: bool) -> dict[str, Any]:
    """Return what tells `ray.init` how much to say."""
    return {"log_to_driver": verbose, "logging_level": logging.INFO if verbose else logging.CRITICAL}


@contextlib.contextmanager
def _token() -> Iterator[None]:
    """Give the cluster a token, unless the user has one; otherwise Ray writes one into the home folder."""
    if _has_token():
        yield
        return
    os.environ[_TOKEN] = _own_token()
    try:
        yield
    finally:
        del os.environ[_TOKEN]


def _has_token() -> bool:
    names = (_TOKEN, "RAY_AUTH_TOKEN_PATH")
    disabled = os.environ.get("RAY_AUTH_MODE", "token").lower() != "token"
    return disabled or any(os.environ.get(name) for name in names)


@functools.cache
def _own_token() -> str:
    """Return a random token, for all clusters that this process starts: Ray reads it once in a process's life."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _temp_dir() -> Iterator[str]:
    folder = tempfile.gettempdir()
    path = tempfile.mkdtemp(prefix="ray-", dir=folder if len(folder) <= _LONGEST_TEMP_DIR else "/tmp")  # noqa: S108
    try:
        yield path
    finally:
        _remove(path)


def _remove(folder: str) -> None:
    """Remove a folder in which the last of Ray's processes may still be writing."""
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)
