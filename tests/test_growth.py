"""The pool of actors follows the cluster."""

from __future__ import annotations

from typing import Any

from ray.data._internal.actor_autoscaler.autoscaling_actor_pool import ActorPoolScalingRequest

from pipeline.growth import Growth


class Pool:
    def __init__(self) -> None:
        self.deltas: list[int] = []
        self._actor_to_logical_id: dict[Any, str] = {}

    def scale(self, req: ActorPoolScalingRequest) -> int:
        self.deltas.append(req.delta)
        return req.delta


def test_step__starts_what_is_missing_once() -> None:
    pool, growth = Pool(), Growth(2)
    growth.step([pool])
    assert pool.deltas == []
    growth.note_room(5)
    growth.step([pool])
    growth.step([pool])
    assert pool.deltas == [3]


def test_step__a_node_in_place_of_a_lost_one_gets_the_actor_that_was_lost() -> None:
    pool, growth = Pool(), Growth(2)
    for room in (1, 2, 1, 3):
        growth.note_room(room)
        growth.step([pool])
    assert pool.deltas == [1]


def test_end__ends_every_actor_that_the_pool_ever_had() -> None:
    pool, growth, ended = Pool(), Growth(1), list[str]()
    for actors in ({"a": "1"}, {"a": "1", "b": "2"}, {"b": "2"}, {}):
        pool._actor_to_logical_id = actors
        growth.step([pool])
    growth.end(ended.append)
    assert sorted(ended) == ["a", "b"]
    growth.end(ended.append)
    assert len(ended) == 2
