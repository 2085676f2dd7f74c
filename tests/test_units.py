"""The units of a pass, handed out one by one."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest
import ray
from ray.data import DataContext
from ray.data._internal.execution.interfaces import RefBundle

from pipeline.table import Unit
from pipeline.units import PlannedUnits, UnitQueue


def read(unit: Unit) -> Iterator[pa.Table]:
    yield pa.table({"name": [unit.name]})


class Queue(UnitQueue):
    """A queue before an operator of which just the number of started tasks is known."""

    started = 0

    @property
    def output_dependencies(self) -> list[Any]:
        return [SimpleNamespace(metrics=SimpleNamespace(num_tasks_submitted=self.started))]


def handed_out(queue: Queue) -> list[RefBundle]:
    bundles = []
    while queue.has_next():
        bundles.append(queue.get_next())
    return bundles


def names(bundles: list[RefBundle]) -> list[str]:
    tasks = ray.get([cast(Any, bundle.block_refs[0]) for bundle in bundles])
    return [block["name"][0].as_py() for task in tasks for block in task()]


@pytest.mark.usefixtures("ray_cluster")
def test_unit_queue__makes_a_task_when_its_turn_comes() -> None:
    planned = PlannedUnits([Unit("p", i, 32) for i in range(5)], read, 100)
    expected, held = [unit.name for unit in planned.units], dict[str, Any]()
    queue = Queue(DataContext.get_current(), planned, held, num_ready=3)
    assert queue.num_outputs_total() == 5
    first = handed_out(queue)
    assert names(first) == expected[:3] == [*held]
    assert not queue.has_completed()  # though there is nothing to take now
    queue.started = 1
    assert names(handed_out(queue)) == expected[3:4]
    assert not queue.has_completed()
    queue.started = 4
    assert names(handed_out(queue)) == expected[4:]
    assert queue.has_completed()
    assert [*held] == expected


def test_planned_units__a_container_that_nobody_has_read_counts_as_some() -> None:
    planned = PlannedUnits([Unit("p", 0, 32), Unit("p", 1, None)], read, 100)
    assert planned.estimate_inmemory_data_size() == (32 + 1024) * 100
    assert [task.metadata.num_rows for task in planned.get_read_tasks(2)] == [32, None]
