"""Ray Data on a cluster of this machine alone: without what it has for clusters, and in no hurry while nothing happens.

It starts three actors. One works out which share of a cluster each of its runs may use, and asks for more nodes;
nothing is scheduled until it is up. Another collects figures for Ray's dashboard. The third knows on which node each
actor is. Each is a process of its own, which takes one or two seconds of a processor's time at the start of every run
and a hundredth of it later on, where the cluster is this run's own, is one machine, and has no dashboard.

And its scheduling loop goes round ten times a second, whether anything has happened or not. Where the driver shares its
cores with the engine, that takes more from the engine than all else that the driver does.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import ray
from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution import streaming_executor
from ray.data._internal.execution.interfaces.execution_options import ExecutionResources
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.execution.streaming_executor_state import Topology, process_completed_tasks
from ray.data._internal.stats import _StatsManager

from pipeline.ray_details import replaced

#: Seconds that the loop waits for something to happen, at most, once nothing has happened for some seconds.
_QUIET_WAIT_S, _QUIET_AFTER_S = 0.4, 1.0


class _WholeMachine(ClusterAutoscaler):
    """Gives a run the whole cluster, as it is."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._total: ExecutionResources = ExecutionResources.from_resource_dict(ray.cluster_resources())  # type: ignore[no-untyped-call]

    def try_trigger_scaling(self) -> None:
        """Leave the cluster as it is."""

    def on_executor_shutdown(self) -> None:
        """Leave the cluster as it is."""

    def get_total_resources(self) -> ExecutionResources:
        """Return what the cluster has."""
        return self._total


class _NoTracker:
    """Stands in for the actor that knows where actors are, as far as these tell it."""

    class update_actor_location:  # noqa: N801 (a method of an actor's handle)
        @staticmethod
        def remote(logical_actor_id: str, node_id: str) -> None:
            """Forget it."""


class _Patience:
    """Has the scheduling loop wait for the next task that gets somewhere, while nothing happens."""

    def __init__(self) -> None:
        self._quiet_from = 0.0

    def process_completed_tasks(self, topology: Topology, *arguments: Any, **named: Any) -> int:
        """Wait a little, and do what Ray Data does."""
        tasks = [task.get_waitable() for operator in topology for task in operator.get_active_tasks()]
        timeout = _QUIET_WAIT_S if time.monotonic() > self._quiet_from else 0.0
        if tasks and ray.wait(tasks, num_returns=1, fetch_local=False, timeout=timeout)[0]:
            self._quiet_from = time.monotonic() + _QUIET_AFTER_S
        return process_completed_tasks(topology, *arguments, **named)


def without_helpers() -> contextlib.AbstractContextManager[None]:
    """Let Ray Data do without its actors for clusters, for what this process runs within a block."""
    nothing = staticmethod(lambda *_, **__: None)
    reports = ("register_dataset_to_stats_actor", "update_execution_metrics", "update_iteration_metrics")
    return replaced(
        (streaming_executor, "create_cluster_autoscaler", _WholeMachine),
        (streaming_executor, "process_completed_tasks", _Patience().process_completed_tasks),
        (actor_pool_map_operator, "get_or_create_actor_location_tracker", _NoTracker),
        (actor_pool_map_operator, "get_actor_locations", lambda _: {}),
        (actor_pool_map_operator, "get_draining_nodes", dict),
        *((_StatsManager, name, nothing) for name in reports),
    )
