"""The work of a run: its pending units through the cluster, in passes for as long as a pass gets some of them done."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import ray
from ray.data.exceptions import SystemException
from ray.exceptions import RayError

from pipeline import cluster, storage
from pipeline.companion import start_companion
from pipeline.errors import ConfigError
from pipeline.graph import embed_units
from pipeline.growth import Growth
from pipeline.images import Limits
from pipeline.layout import EngineSpec, Layout, plan_layout, room_for_actors
from pipeline.local_data import without_helpers
from pipeline.memory import ClusterMemory
from pipeline.monitor import Signs, watch
from pipeline.progress import Progress, ProgressCallback
from pipeline.run_options import WorkOptions
from pipeline.stages.commit import UnitReport
from pipeline.table import Ledger, pending_units
from pipeline.task import Outcome, Task
from pipeline.watchdog import Stalled, Watchdog

logger = logging.getLogger(__name__)

#: Seconds to wait for the companion's answer.
_ANSWER_S = 30.0


def work(
    task: Task, options: WorkOptions, on_progress: ProgressCallback | None, outcome: Outcome | None = None
) -> Outcome:
    """Do the pending units on Ray: in passes, until none is left or a pass gets nowhere.

    Args:
        task: What to do.
        options: How.
        on_progress: Called a few times a second.
        outcome: What the run has done before, to be continued.

    Raises:
        ConfigError: It can't be done as asked.
    """
    started = time.perf_counter()
    with cluster.connect(options.verbose) as connection:
        if connection.dashboard:
            logger.info("Ray dashboard: %s", connection.dashboard)
        run = _Run(task, options, connection.can_grow, outcome or Outcome())
        helpers = contextlib.nullcontext() if connection.can_grow else without_helpers()
        try:
            with helpers, watch(run.companion, partial(run.listen, on_progress)):
                while run.pending and run.next_pass():
                    pass
        finally:
            run.close()
    run.outcome.seconds += time.perf_counter() - started
    return run.outcome


class _Run:
    """The passes of a run over its pending units.

    Every unit that a pass tries gives a report, unless its process died twice (see `pipeline.graph`), or the pass was
    ended early: by the watchdog, since nothing moved any more, or by Ray. Of the units without a report, those that
    were being read are read one image after the other in the next pass, each image in a process of its own. GPUs decode
    in the first pass only: what is left after it must not be there because of what an image does to such a decoder.
    """

    def __init__(self, task: Task, options: WorkOptions, can_grow: bool, outcome: Outcome) -> None:
        self.task, self.options, self.outcome = task, options, outcome
        outcome.bound.clear()
        self.pending = pending_units(task.table, task.units)
        self._can_grow = can_grow
        self._watchdog = Watchdog(options.stall_timeout_s)
        donors = [task.table, *task.reuse] if task.has_embeddings else task.reuse
        self.companion = start_companion(donors)
        self._memory = ClusterMemory(self.companion, donors) if donors else None
        self._report_progress = _progress_reporter(task.before, outcome.reports, len(outcome.reports))
        self._spec = EngineSpec.of(options)
        self._pass: tuple[Layout, Growth] | None = None
        self._signs = Signs()
        self._alone: set[str] = set()

    def close(self) -> None:
        """End the run's own actor: a cluster that lives on would keep it as long as this process has handles."""
        ray.kill(self.companion)

    def listen(self, on_progress: ProgressCallback | None, signs: Signs) -> None:
        """Take the signs of life that the processes at work give."""
        self._signs = signs
        self._watchdog.note("work", signs)
        resources = cluster.resources()
        self._watchdog.note_nodes(resources.nodes)
        if self._pass is not None:
            layout, growth = self._pass
            growth.note_room(min(room_for_actors(self._spec, layout.device, resources), len(self.pending)))
        if on_progress is not None:
            on_progress(self._report_progress(signs.embedded))

    def next_pass(self) -> bool:
        """Try all pending units, and return whether another pass may get further."""
        outcome = self.outcome
        outcome.troubles.clear()
        self._watchdog.start(cluster.resources().nodes)
        reported: set[str] = set()
        ended: str | None = None
        try:
            for report in self._embed():
                if report.hopeless:
                    raise ConfigError(str(report.trouble))
                self._watchdog.note("commits", len(outcome.reports))
                reported.add(report.name)
                outcome.reports.append(report)
                if report.trouble is not None:
                    outcome.troubles[report.name] = report.trouble
        except (RayError, SystemException, Stalled) as error:
            ended = self._why(error)
        finally:
            if self._pass is not None:
                self._pass[1].end()
        left = pending_units(self.task.table, self.pending)
        silent = {unit.name for unit in left} - reported
        bound = {report.name for report in outcome.reports if report.bound} & {unit.name for unit in left}
        suspects = self._being_read() & silent
        further = len(left) < len(self.pending) or self._watchdog.lost_a_node or not suspects <= self._alone
        if self._spec.decode == "gpu":
            self._spec, further = replace(self._spec, decode="cpu"), True
        for name in sorted(silent):
            what = "reading it" if name in suspects else "embedding or committing it"
            outcome.troubles[name] = ended or self._why_silent(what)
        self._alone |= suspects
        self.pending = [unit for unit in left if unit.name not in bound]
        outcome.bound |= bound
        if self.pending and further:
            ray.get(self.companion.forget.remote())
            reason = next(iter(outcome.troubles.values()), "")
            logger.warning("%d unit(s) are left; trying them again. %s", len(self.pending), reason)
        return further

    def _layout(self) -> Layout:
        """Share what the cluster has now among the stages."""
        resources = cluster.resources()
        layout = plan_layout(self._spec, resources, self._can_grow)
        most = f"up to {layout.max_actors} actor(s)" if layout.max_actors else "one actor a node or GPU"
        logger.info("Engine %s on %s, %s.", layout.engine, layout.device, most)
        if layout.device == "cuda" and resources.num_gpus < 1:
            logger.warning("The cluster has no GPU now; waiting for a node with one to join.")
        return layout

    def _embed(self) -> Iterator[UnitReport]:
        task, options, layout = self.task, self.options, self._layout()
        growth = Growth(min(layout.num_actors, len(self.pending)))
        self._pass = layout, growth
        return embed_units(
            task.table,
            self.pending,
            task.source,
            task.backbone,
            self._spec,
            layout,
            limits=Limits(options.max_image_pixels, options.max_image_bytes, options.allow_tiff),
            embedding_type=task.embedding_type,
            derive=task.derive,
            finish=task.finish,
            run=task.identity,
            companion=self.companion,
            callbacks=[self._watchdog.callback(), growth.callback()],
            memory=self._memory,
            alone=self._alone,
        )

    def _being_read(self) -> frozenset[str]:
        try:
            signs: Signs = ray.get(self.companion.signs.remote(), timeout=_ANSWER_S)
        except RayError:
            return self._signs.reading
        return signs.reading

    def _why_silent(self, what: str) -> str:
        """Return why a pass has not told what became of a unit."""
        if self._watchdog.lost_a_node:
            return "A node of the cluster was lost, and this unit with it."
        return (
            f"Two processes died while {what}, or Ray had no space for its images (`df`, `ray memory`); --verbose "
            "shows Ray's log."
        )

    def _why(self, error: Exception) -> str:
        """Return why a pass was ended early."""
        if self._watchdog.stalled_s is not None:
            limit = f"--stall-timeout-s {self.options.stall_timeout_s:g}"
            cause = "after a node of the cluster was lost" if self._watchdog.lost_a_node else f"({limit})"
            return (
                f"Nothing was read, embedded or committed for {self._watchdog.stalled_s:.0f} s {cause}, so the work "
                "was stopped. Look for a file system or a store that hangs, and whether the cluster has room for the "
                "work: `ray status`."
            )
        return storage.explained(error, "Ray stopped")


def _progress_reporter(before: Ledger, reports: list[UnitReport], skip: int) -> Callable[[int], Progress]:
    start = time.monotonic()

    def report(through_engine: int) -> Progress:
        committed = [report for report in reports[skip:] if report.trouble is None]
        finished = sum(report.embedded + report.rejected for report in committed)
        # What a container holds shows when it is read, and only then.
        found = sum(report.embedded + report.rejected - 1 for report in committed if report.num_images is None)
        planned = before.planned + found
        new = min(max(through_engine, finished), max(before.pending + found, finished))
        done = before.planned - before.pending + new
        rejected = before.rejected + sum(report.rejected for report in committed)
        return Progress(max(planned, done), done, rejected, new, time.monotonic() - start)

    return report
