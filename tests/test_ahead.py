"""How far reading may be ahead of embedding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

from pipeline.ahead import ReadAhead


class Embed(ActorPoolMapOperator):
    """The operator of the actors, as far as it is looked at."""

    def __init__(self, running: int, active: int) -> None:
        self._running, self._active = running, active

    def get_actor_info(self) -> Any:
        return SimpleNamespace(running=self._running)

    def num_active_tasks(self) -> int:
        return self._active

    @property
    def output_dependencies(self) -> list[Any]:
        return []

    def __repr__(self) -> str:
        return "Embed"


class Read:
    """The operator before it."""

    def __init__(self, embed: Embed) -> None:
        self.output_dependencies = [embed]


def may_read(queued: int, running: int, active: int, units_per_actor: int = 2) -> bool:
    """Return whether another unit may be read, by the units that are queued and those in the actors' hands."""
    embed = Embed(running, active)
    read = Read(embed)
    topology = {
        read: SimpleNamespace(total_enqueued_output_blocks=lambda: queued),
        embed: SimpleNamespace(total_enqueued_input_blocks=lambda: 0),
    }
    policy = ReadAhead(cast(Any, None), cast(Any, topology), cast(Any, None), units_per_actor)
    assert policy.can_add_input(cast(Any, embed))
    return policy.can_add_input(cast(Any, read))


@pytest.mark.parametrize(
    ("queued", "running", "active", "expected"),
    [
        (0, 1, 0, True),
        (0, 1, 2, True),  # one at work, one waiting
        (1, 1, 2, False),
        (0, 1, 3, False),
        (1, 0, 0, True),  # while the actor starts
        (2, 0, 0, False),
        (5, 4, 6, True),
        (6, 4, 6, False),
    ],
)
def test_read_ahead__goes_by_the_units_that_wait(queued: int, running: int, active: int, expected: bool) -> None:
    assert may_read(queued, running, active) is expected
