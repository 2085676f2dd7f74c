"""The work of a run: its pending units through the cluster, in passes for as long as a pass gets some of them done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from ray.data.exceptions import SystemException
from ray.exceptions import RayError

from pipeline import cluster
from pipeline.content import start_memory
from pipeline.counter import Counter, watch
from pipeline.errors import ConfigError
from pipeline.graph import BackboneSpec, embed_units
from pipeline.images import Limits
from pipeline.layout import EngineSpec, plan_layout
from pipeline.progress import Progress, ProgressCallback
from pipeline.run_options import RunOptions
from pipeline.sources import Source
from pipeline.stages.commit import Finish, UnitReport
from pipeline.table import Ledger, Table, Unit, pending_units

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """What a run has to do.

    Args:
        table: Where the rows go.
        units: The run's units, done ones included.
        source: Where their images are.
        backbone: What to embed with.
        embedding_type: Arrow type of the embeddings on their way.
        finish: Makes the data files' columns.
        identity: What identifies the run, stored in the data files.
        reuse: Other tables of the same features, to copy embeddings from.
        before: The ledger as it was.
        has_embeddings: Whether the table's own rows can be copied from.
    """

    table: Table
    units: list[Unit]
    source: Source
    backbone: BackboneSpec
    embedding_type: pa.DataType
    finish: Finish
    identity: dict[str, Any]
    reuse: tuple[Table, ...]
    before: Ledger
    has_embeddings: bool


@dataclass(slots=True)
class Outcome:
    """What became of the work.

    Args:
        reports: One for each unit that was tried.
        troubles: Why units stay pending, by their names.
        seconds: Time that it took.
    """

    reports: list[UnitReport] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def work(task: Task, options: RunOptions, on_progress: ProgressCallback | None) -> Outcome:
    """Do the pending units on Ray.

    Raises:
        ConfigError: It can't be done as asked.
    """
    started = time.perf_counter()
    outcome = Outcome()
    spec = EngineSpec(options.engine, options.precision, options.device, options.batch_size, options.num_actors)
    with cluster.connect(options.verbose) as connection:
        if connection.dashboard:
            logger.info("Ray dashboard: %s", connection.dashboard)
        resources = cluster.resources()
        layout = plan_layout(spec, resources, connection.can_grow)
        most = f"up to {layout.max_actors} actor(s)" if layout.max_actors else "one actor a GPU"
        logger.info("Engine %s on %s, %s.", layout.engine, layout.device, most)
        if layout.device == "cuda" and resources.num_gpus < 1:
            logger.warning("The cluster has no GPU now; waiting for a node with one to join.")
        counter = Counter.remote()  # type: ignore[attr-defined]
        donors = [task.table, *task.reuse] if task.has_embeddings else task.reuse
        memory = start_memory(donors) if donors else None
        with watch(counter, _progress_reporter(task.before, outcome.reports, on_progress)):
            pending = pending_units(task.table, task.units)
            while pending:
                outcome.troubles.clear()
                try:
                    for report in embed_units(
                        task.table,
                        pending,
                        task.source,
                        task.backbone,
                        spec,
                        layout,
                        limits=Limits(options.max_image_pixels, options.max_image_bytes),
                        embedding_type=task.embedding_type,
                        finish=task.finish,
                        run=task.identity,
                        counter=counter,
                        memory=memory,
                    ):
                        if report.hopeless:
                            raise ConfigError(str(report.trouble))
                        outcome.reports.append(report)
                        if report.trouble is not None:
                            outcome.troubles[report.name] = report.trouble
                except (RayError, SystemException) as error:
                    first_line = (str(error) or type(error).__name__).splitlines()[0]
                    outcome.troubles[pending[0].name] = f"Ray stopped: {type(error).__name__}: {first_line}"
                left = pending_units(task.table, task.units)
                if len(left) == len(pending):
                    break
                if left:
                    reason = next(iter(outcome.troubles.values()), "A task failed or its process died.")
                    logger.warning("%d unit(s) are left; trying them again. %s", len(left), reason)
                pending = left
    outcome.seconds = time.perf_counter() - started
    return outcome


def _progress_reporter(
    before: Ledger, reports: list[UnitReport], on_progress: ProgressCallback | None
) -> Callable[[int], None]:
    start = time.monotonic()

    def report(through_engine: int) -> None:
        if on_progress is None:
            return
        committed = [report for report in reports if report.trouble is None]
        finished = sum(report.embedded + report.rejected for report in committed)
        # What a container holds shows when it is read, and only then.
        found = sum(report.embedded + report.rejected - 1 for report in committed if report.num_images is None)
        planned = before.planned + found
        new = min(max(through_engine, finished), max(before.pending + found, finished))
        done = before.planned - before.pending + new
        rejected = before.rejected + sum(report.rejected for report in committed)
        on_progress(Progress(max(planned, done), done, rejected, new, time.monotonic() - start))

    return report
