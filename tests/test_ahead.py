"""How far reading may be ahead of embedding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

from pipeline.ahead import ReadAhead


class Embed(ActorPoolMapOperator):
    """The operator of the actors, as far as it is looked at."""

    def __init__(self, running: int, active: int, finished: int) -> None:
        self._running, self._active, self._finished = running, active, finished

    @property
    def metrics(self) -> Any:
        return SimpleNamespace(num_tasks_finished=self._finished)

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

    def __init__(self, embed: Embed, active: int) -> None:
        self.output_dependencies, self._active = [embed], active

    def num_active_tasks(self) -> int:
        return self._active


def may_read(queued: int, running: int, active: int, reading: int = 0, finished: int = 1) -> bool:
    """Return whether another unit may be read: by those that are queued, in the actors' hands, and being read.

    Those that are queued may have got to either of two queues.
    """
    first, second = (
        _may_read(queued - arrived, arrived, running, active, reading, finished) for arrived in (0, queued)
    )
    assert first == second
    return first


def _may_read(left: int, arrived: int, running: int, active: int, reading: int, finished: int) -> bool:
    embed = Embed(running, active, finished)
    read = Read(embed, reading)
    topology = {
        read: SimpleNamespace(total_enqueued_output_blocks=lambda: left),
        embed: SimpleNamespace(total_enqueued_input_blocks=lambda: arrived),
    }
    policy = ReadAhead(cast(Any, None), cast(Any, topology), cast(Any, None), units_per_actor=2, units_before=2)
    assert policy.can_add_input(cast(Any, embed))
    return policy.can_add_input(cast(Any, read))


@pytest.mark.parametrize(
    ("queued", "running", "active", "reading", "expected"),
    [
        (0, 1, 1, 0, True),
        (0, 1, 1, 1, True),
        (0, 1, 1, 2, False),  # one in hand, two being read
        (0, 1, 2, 1, False),  # one waits for the actor in its own queue
        (1, 1, 1, 1, False),
        (2, 1, 1, 0, False),
        (4, 4, 4, 3, True),
        (4, 4, 4, 4, False),
    ],
)
def test_read_ahead__goes_by_the_units_that_are_decoded_or_being_read(
    queued: int, running: int, active: int, reading: int, expected: bool
) -> None:
    assert may_read(queued, running, active, reading) is expected


def test_read_ahead__where_an_actor_has_nothing_in_hand_reading_takes_all_it_can_get() -> None:
    assert may_read(0, 1, 0, reading=7)
    assert may_read(1, 4, 2, reading=20)
    assert not may_read(2, 4, 2, reading=20)


def test_read_ahead__goes_on_while_new_actors_start() -> None:
    assert may_read(1, 0, 0)
    assert not may_read(2, 0, 0)


@pytest.mark.parametrize(
    ("queued", "running", "in_the_pool", "reading", "expected"),
    [
        (0, 0, 0, 0, True),
        (1, 0, 0, 0, True),
        (0, 0, 0, 1, True),
        (0, 0, 1, 0, True),
        (1, 0, 0, 1, False),
        (2, 0, 0, 0, False),
        (0, 1, 1, 1, True),  # one more, since an actor runs
        (0, 1, 1, 2, False),
        (0, 1, 0, 3, False),  # also where the actor has nothing in hand
    ],
)
def test_read_ahead__until_a_unit_is_embedded_what_is_being_read_counts_too(
    queued: int, running: int, in_the_pool: int, reading: int, expected: bool
) -> None:
    assert may_read(queued, running, in_the_pool, reading, finished=0) is expected
