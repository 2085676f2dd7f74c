"""Ray Data on a cluster of this machine alone: without the two actors that it starts for clusters.

One works out which share of a cluster each of its runs may use, and asks for more nodes; nothing is scheduled until it
is up. The other one collects figures for Ray's dashboard. Each imports Ray Data in a process of its own, which takes
two seconds of a processor's time at the start of every run, where the cluster is this run's own, can't grow, and has no
dashboard.
"""

from __future__ import annotations

import contextlib
from typing import Any

import ray
from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution import streaming_executor
from ray.data._internal.execution.interfaces.execution_options import ExecutionResources
from ray.data._internal.stats import _StatsManager

from pipeline.ray_details import replaced


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


def without_helpers() -> contextlib.AbstractContextManager[None]:
    """Let Ray Data do without its actors for clusters, for what this process runs within a block."""
    nothing = staticmethod(lambda *_, **__: None)
    reports = ("register_dataset_to_stats_actor", "update_execution_metrics", "update_iteration_metrics")
    return replaced(
        (streaming_executor, "create_cluster_autoscaler", _WholeMachine),
        *((_StatsManager, name, nothing) for name in reports),
    )
