"""The units of a pass as Ray Data's read tasks: one task, one unit, one block; each is made when its turn comes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import DataContext, Datasource, ReadTask
from ray.data._internal.execution.interfaces import BlockEntry, RefBundle
from ray.data._internal.execution.operators.input_data_buffer import InputDataBuffer
from ray.data.block import BlockMetadata

from pipeline.ray_details import replaced
from pipeline.table import Unit

#: What a container is taken to hold as long as nobody has read it, for estimates of memory.
_UNKNOWN_IMAGES = 1024
#: Read tasks that are made and not started yet. Ray Data starts what there is room for ten times a second and more
#: often, so these are for some thousand units/s.
_READY = 128
#: What a task takes in the object store, about.
_TASK_BYTES = 4096


class PlannedUnits(Datasource):
    """The units to do.

    Args:
        units: Which ones.
        read: Reads one; yields its block.
        bytes_per_image: Of a block, for estimates of memory.
    """

    def __init__(self, units: Sequence[Unit], read: Callable[[Unit], Iterator[pa.Table]], bytes_per_image: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.units, self._read, self._bytes_per_image = units, read, bytes_per_image

    def get_name(self) -> str:
        """Name the operator in Ray's dashboard."""
        return "ReadUnit"

    def estimate_inmemory_data_size(self) -> int:
        """Return the bytes of all units' blocks."""
        return sum(unit.num_images or _UNKNOWN_IMAGES for unit in self.units) * self._bytes_per_image

    def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[ReadTask]:  # noqa: ARG002
        """Return one task a unit; the units are the parallelism."""
        return [self.task(unit) for unit in self.units]

    def task(self, unit: Unit) -> ReadTask:
        """Return the task that reads a unit."""
        size = (unit.num_images or _UNKNOWN_IMAGES) * self._bytes_per_image
        return ReadTask(partial(self._read, unit), BlockMetadata(unit.num_images, size, None, None))


class UnitQueue(InputDataBuffer):
    """Puts read tasks into the object store a few at a time.

    Ray Data's own puts all of them there before the first one starts, which took 0.8 ms a unit, and keeps them.

    Args:
        data_context: Ray Data's settings.
        units: What is to be read.
        held: Takes each unit's task, by the unit's name, when its turn comes. It has to stay there until the unit is
            committed: where a node is lost, its block is made again from that.
        num_ready: Tasks that may be made and not started.
    """

    def __init__(
        self, data_context: DataContext, units: PlannedUnits, held: dict[str, Any], num_ready: int = _READY
    ) -> None:
        super().__init__(data_context, input_data=[])
        self._units, self._held, self._num_ready, self._num_made = units, held, num_ready, 0
        self._estimated_num_output_bundles = len(units.units)  # type: ignore[assignment]

    def has_next(self) -> bool:
        """Return whether another unit may wait for its start."""
        (read,) = self.output_dependencies
        return not self._all_made and self._num_made - read.metrics.num_tasks_submitted < self._num_ready

    def has_completed(self) -> bool:
        """Return whether there are no more units; that none may wait now is not the end."""
        return self._all_made

    @property
    def _all_made(self) -> bool:
        return self._num_made == len(self._units.units)

    def _get_next_inner(self) -> RefBundle:
        unit = self._units.units[self._num_made]
        self._num_made += 1
        task: Any = ray.put(self._units.task(unit))
        entry = BlockEntry(task, BlockMetadata(1, _TASK_BYTES, None, None))
        self._held[unit.name] = bundle = RefBundle((entry,), owns_blocks=False, schema=None)
        self._metrics.on_input_received(bundle)
        return bundle


def one_by_one(units: PlannedUnits, held: dict[str, Any]) -> AbstractContextManager[None]:
    """Let Ray Data, which has no option for it, take its input from a `UnitQueue` within a block."""
    planner = importlib.import_module("ray.data._internal.planner.plan_read_op")
    return replaced((planner, "InputDataBuffer", lambda context, **_: UnitQueue(context, units, held)))
