"""The pool of embed actors: it grows with the cluster, by one for each GPU, or node with CPUs, and ends with its pass.

Ray Data's own autoscaler adds an actor when its share of the cluster's CPUs, which it works out anew all the time, has
room for one. With few nodes it never has, since the share of the stages that need next to nothing is as large; with
many it holds more actors than there are nodes, which never start, while reading goes without their CPUs. So that is
turned off, and the driver, which looks at the nodes anyway, says how many actors there is room for.

At the end, Ray Data only drops its handles of the actors. After a pass that lost a node, Python's garbage may hold
others for a long time; then the actor goes on holding its CPUs, and that of the next pass finds none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import ray
from ray.data._internal.actor_autoscaler.autoscaling_actor_pool import ActorPoolScalingRequest
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.data.context import AutoscalingConfig

#: Ray Data's own autoscaling of actors, turned off.
NO_AUTOSCALING = AutoscalingConfig(
    actor_pool_util_upscaling_threshold=math.inf, actor_pool_util_downscaling_threshold=-1.0
)


class Pool(Protocol):
    """What this module needs of Ray Data's actor pools."""

    #: Its actors, those that are starting included.
    _actor_to_logical_id: Mapping[Any, str]

    def scale(self, req: ActorPoolScalingRequest) -> int | None:
        """Start more actors, or end some."""


class Growth:
    """Knows how many actors there is room for, and starts those that are missing.

    The pool never shrinks: an actor whose node is lost waits for another node, and is the one to start there.

    Args:
        num_actors: Actors that the pool starts with.
    """

    def __init__(self, num_actors: int) -> None:
        self._started = self._room = num_actors
        self._actors: set[Any] = set()

    def note_room(self, num_actors: int) -> None:
        """Take note of how many actors there is room for now."""
        self._room = num_actors

    def step(self, pools: Sequence[Pool]) -> None:
        """Start the actors that are missing in the pool, of which there is one."""
        self._actors.update(actor for pool in pools for actor in pool._actor_to_logical_id)
        missing = self._room - self._started
        if missing <= 0:
            return
        for pool in pools:
            pool.scale(ActorPoolScalingRequest.upscale(delta=missing, reason="the cluster has grown"))
        self._started += missing

    def end(self, kill: Callable[[Any], object] = ray.kill) -> None:
        """End all actors of the pool.

        Args:
            kill: Ends one, for good.
        """
        while self._actors:
            kill(self._actors.pop())

    def callback(self) -> type[ExecutionCallback]:
        """Return what Ray Data's executor calls at each of its steps."""
        growth = self

        class Grow(ExecutionCallback):
            def on_execution_step(self, executor: StreamingExecutor) -> None:
                topology = executor._topology or {}
                pools = [pool for operator in topology for pool in operator.get_autoscaling_actor_pools()]
                growth.step(cast(Sequence[Pool], pools))

        return Grow
