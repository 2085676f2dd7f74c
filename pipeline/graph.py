"""The Ray Data graph: units -> read and decode -> embed -> commit. The one place where the stages are put together."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, cast

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy
from ray.data._internal.execution.backpressure_policy import ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.util.annotations import RayDeprecationWarning

from pipeline import ahead
from pipeline.actor import BackboneSpec, EmbedActor
from pipeline.growth import NO_AUTOSCALING
from pipeline.images import Limits
from pipeline.layout import COMMIT_CPUS, EngineSpec, Layout
from pipeline.memory import ClusterMemory
from pipeline.monitor import ReadReporter
from pipeline.sources import Source
from pipeline.stages.commit import Finish, UnitReport, commit_and_report
from pipeline.stages.costs import Costs
from pipeline.stages.derive import Derive
from pipeline.stages.read import read_block
from pipeline.table import Table, Unit
from pipeline.units import PlannedUnits, one_by_one

logger = logging.getLogger(__name__)

# A task whose process dies is tried once more, wherever there is room; a unit that dies twice is left to the next pass,
# which reads it image by image. (Ray Data's own default is to try for ever.) Actors restart as often as it takes: each
# restart costs a unit one of its two tries, so an image can't keep them at it, while spot nodes may go for days.
_MAX_RETRIES, _MAX_ACTOR_RESTARTS = 1, -1
# Units in an actor at once, at least. Also where it works on one, in the one thread that Ray Data has for that, another
# comes in from the object store meanwhile, or goes out. One by one, the engine waited 17 ms a unit
# (docs/performance.md, "Scale").
_CALLS_PER_ACTOR = 2


def embed_units(
    table: Table,
    units: Sequence[Unit],
    source: Source,
    backbone: BackboneSpec,
    spec: EngineSpec,
    layout: Layout,
    *,
    limits: Limits,
    embedding_type: pa.DataType,
    derive: Derive | None,
    finish: Finish,
    run: dict[str, Any],
    companion: Any,
    callbacks: Sequence[type[ExecutionCallback]],
    memory: ClusterMemory | None,
    alone: Collection[str] = (),
) -> Iterator[UnitReport]:
    """Embed and commit units on the connected Ray cluster.

    Args:
        table: Where the rows go; its plans hold the units.
        units: What to do.
        source: Where the bytes are.
        backbone: What to embed with.
        spec: What executes it.
        layout: How the stages share the cluster.
        limits: What a single image may cost.
        embedding_type: Arrow type of the embeddings.
        derive: What the actors make of the embeddings, to travel on in their place; None: nothing.
        finish: Makes the data files' columns, see `pipeline.stages.commit.commit_block`.
        run: What identifies the run.
        companion: The handle of the run's companion.
        callbacks: What Ray Data's executor calls at each of its steps; an exception ends the work.
        memory: What has been embedded before.
        alone: Names of units whose images are decoded one by one in a process of their own.

    Yields:
        What became of each unit, in the order in which they get ready. A unit whose process died again and again
        gives no report.

    Raises:
        RayError: Ray ended it, or a callback did.
        SystemException: Likewise.
    """
    side = backbone.preprocessing.crop
    bytes_per_image = side * side * 3 + 512
    planned = PlannedUnits(
        units,
        partial(
            read_block,
            table=table,
            source=source,
            preprocessing=backbone.preprocessing,
            limits=limits,
            memory=memory,
            alone=frozenset(alone),
            listener=ReadReporter(companion),
            for_gpu=spec.decode == "gpu",
            leave_small=layout.leave_small,
        ),
        bytes_per_image,
    )
    commit = partial(
        commit_and_report,
        table=table,
        finish=finish,
        run=run,
        on_committed=memory.add if memory is not None else None,
    )
    at_work: dict[str, Any] = {}
    with _data_context(callbacks, layout), one_by_one(planned, at_work):
        actor_arguments = (backbone, spec, layout, embedding_type, companion, limits, derive)
        blocks = _graph(planned, actor_arguments, commit, layout)
        for batch in blocks.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in cast(pa.Table, batch).to_pylist():
                report = UnitReport(**{**row, "costs": Costs(**row["costs"])})
                at_work.pop(report.name, None)
                yield report


def _graph(
    units: PlannedUnits,
    actor_arguments: tuple[Any, ...],
    commit: Callable[[pa.Table], pa.Table],
    layout: Layout,
) -> Dataset:
    num_units = len(units.units)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # Ray 2.60 has no other way yet to set these limits
        pixels = ray.data.read_datasource(
            units,
            override_num_blocks=num_units,
            num_cpus=layout.read_cpus,
            concurrency=None if layout.max_reads is None else min(layout.max_reads, num_units),
            ray_remote_args={"max_retries": _MAX_RETRIES},
        )
        # The public map_batches asks for a batch size wherever GPUs are asked for, and would then join and cut blocks
        # to that size; a unit must stay a unit. Ray's own map_groups goes this way for the same reason.
        vectors = pixels.map_batches_internal(
            EmbedActor,
            fn_constructor_args=actor_arguments,
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=1,
                initial_size=min(layout.num_actors, num_units),
                max_size=layout.max_actors,
                max_tasks_in_flight_per_actor=layout.units_sent,
                max_concurrent_calls_per_actor=max(_CALLS_PER_ACTOR, layout.units_at_once),
                enable_true_multi_threading=layout.units_at_once > 1,
            ),
            num_cpus=layout.actor_cpus,
            num_gpus=1 if layout.device == "cuda" else None,
            max_restarts=_MAX_ACTOR_RESTARTS,
            max_task_retries=_MAX_RETRIES,
        )
        reports: Dataset = vectors.map_batches(
            commit,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=COMMIT_CPUS,
            compute=TaskPoolStrategy(min(layout.max_commits, num_units)),
            max_retries=_MAX_RETRIES,
        )
    return reports


class _data_context:  # noqa: N801 (a context manager, used like a function)
    """Ray Data's settings for a run: units stay whole, no progress bars, and one lost unit doesn't stop the rest."""

    def __init__(self, callbacks: Sequence[type[ExecutionCallback]], layout: Layout) -> None:
        self._policies = ahead.policies(layout.units_ahead, layout.units_before)
        self._wanted: dict[str, Any] = {
            "target_max_block_size": None,  # a unit is a block, and a container's size is not known before
            "enable_progress_bars": False,
            "print_on_execution_start": False,
            "max_errored_blocks": -1,
            "enable_auto_log_stats": False,
            "execution_no_progress_timeout_s": -1,  # the watchdog's work
            "memory_usage_poll_interval_s": None,  # a thread for each task, for a figure that nobody reads
            "custom_execution_callback_classes": list(callbacks),
            "autoscaling_config": NO_AUTOSCALING,
        }

    def __enter__(self) -> None:
        context = DataContext.get_current()
        self._before = {name: getattr(context, name) for name in self._wanted}
        for name, value in self._wanted.items():
            setattr(context, name, value)
        context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, self._policies)

    def __exit__(self, *error: object) -> None:
        context = DataContext.get_current()
        for name, value in self._before.items():
            setattr(context, name, value)
        context.remove_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY)
