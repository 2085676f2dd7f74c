"""How far reading may be ahead of embedding: a few units, whatever the cluster's memory and the source's size.

Ray Data lets a stage run ahead until its share of the object store is full. That is memory that grows with the number
of images; and on a machine whose cores decode and embed at the same time, decoding ahead only takes them from the
engine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ray.data._internal.execution.backpressure_policy import ENABLED_BACKPRESSURE_POLICIES
from ray.data._internal.execution.backpressure_policy.backpressure_policy import BackpressurePolicy
from ray.data._internal.execution.interfaces.physical_operator import PhysicalOperator
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator
from ray.data._internal.execution.resource_manager import ResourceManager
from ray.data._internal.execution.streaming_executor_state import Topology
from ray.data.context import DataContext


class ReadAhead(BackpressurePolicy):
    """Starts no reading while enough units are decoded, or being read, beyond those that actors have in hand.

    Where an actor has nothing in hand, reading is too slow for it, and as much is read at once as there are CPUs for.

    Args:
        data_context: Ray Data's settings.
        topology: The operators, and what is queued between them.
        resource_manager: Ray Data's accounts of resources.
        units_per_actor: Units that may be ahead of each actor.
        units_before: Units that may be decoded or being read, besides one for each actor that runs, until the first one
            is embedded. On a machine that computes on its cores, each process that starts to read delays that.
    """

    def __init__(
        self,
        data_context: DataContext,
        topology: Topology,
        resource_manager: ResourceManager,
        units_per_actor: int,
        units_before: int,
    ) -> None:
        super().__init__(data_context, topology, resource_manager)
        self._units_per_actor, self._units_before = units_per_actor, units_before

    def can_add_input(self, op: PhysicalOperator) -> bool:
        """Return whether an operator may start another task; only those before the actors are held back."""
        for embed in op.output_dependencies:
            if isinstance(embed, ActorPoolMapOperator):
                actors = embed.get_actor_info().running
                decoded = self._topology[op].total_enqueued_output_blocks()
                decoded += self._topology[embed].total_enqueued_input_blocks() + embed.num_active_tasks()
                begun = decoded + op.num_active_tasks()
                if embed.metrics.num_tasks_finished == 0:
                    return begun < self._units_before + actors
                return decoded < actors or begun - actors < self._units_per_actor * max(1, actors)
        return True


def policies(
    units_per_actor: int, units_before: int
) -> list[Callable[[DataContext, Topology, ResourceManager], BackpressurePolicy]]:
    """Return Ray Data's own policies and `ReadAhead`, for the setting ``backpressure_policies.enabled``."""
    ahead = partial(ReadAhead, units_per_actor=units_per_actor, units_before=units_before)
    return [*ENABLED_BACKPRESSURE_POLICIES, ahead]
