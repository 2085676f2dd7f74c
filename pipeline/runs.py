"""A run: bring every image of a source into a table, however often it is interrupted on the way."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from ray.data.exceptions import SystemException
from ray.exceptions import RayError

from pipeline import cluster, storage
from pipeline.counter import Counter, watch
from pipeline.engines import require_here
from pipeline.errors import ConfigError, RunIncomplete, TooManyRejects
from pipeline.graph import BackboneSpec, embed_units
from pipeline.images import Limits
from pipeline.layout import EngineSpec, plan_layout
from pipeline.progress import Progress, ProgressCallback
from pipeline.refs import refs_table
from pipeline.run_options import RunOptions
from pipeline.sources import Source
from pipeline.stages.commit import UnitReport
from pipeline.table import (
    Table,
    TableInfo,
    Unit,
    check_info,
    count_codes,
    create_table,
    list_units,
    make_ledger,
    pending_units,
    plan_missing,
    planned_refs,
    write_manifest,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """What a run writes.

    Args:
        table: Where.
        info: What the table says of itself.
        backbone: What to embed with, meeting the table's contract.
        embedding_type: Arrow type of the embeddings on their way.
        finish: Makes the data files' columns from rows with embeddings.
    """

    table: Table
    info: TableInfo
    backbone: BackboneSpec
    embedding_type: pa.DataType
    finish: Callable[[pa.Table], pa.Table]


def run(
    options: RunOptions,
    source: Source,
    target: Target,
    on_progress: ProgressCallback | None,
) -> dict[str, Any]:
    """Bring every image of a source into a table; its units committed one by one.

    Args:
        options: How.
        source: Which images.
        target: What becomes of them, and where it goes.
        on_progress: Called a few times a second while the work goes on.

    Returns:
        The run's record, as plain JSON values.

    Raises:
        ConfigError: It can't be done as asked.
        RunIncomplete: Images are pending; the same call again goes on.
        TooManyRejects: All images are done, but too many of them are rejects.
    """
    started = time.time()
    table, contract = target.table, target.info.contract
    storage.require_folder(table.uri, "--table or --output")
    check_info(table, target.info)
    if cluster.is_local():
        require_here(options.engine, options.precision, options.device)
    if contract.random_weights:
        logger.warning(
            "RANDOM WEIGHTS (%s): the backbone is not trained. Good for a trial; use trained weights for real work.",
            contract.weights,
        )
    refs = refs_table(source.refs())
    if not len(refs):
        raise ConfigError(f"Expected images in the source, found none{_skipped_text(source)}. Check --source.")
    refs = refs.slice(0, options.limit)
    create_table(table, target.info)
    units, changed = plan_missing(table, target.info.digest, refs, options.unit_size)
    before = make_ledger(table, units)
    logger.info(
        "%d images planned, %d done before, %d to do%s.",
        before.planned,
        before.embedded + before.rejected,
        before.pending,
        _skipped_text(source),
    )
    if changed:
        logger.warning("%d image(s) have changed since they were embedded; their rows stay as they are.", changed)
    run_id = secrets.token_hex(4)
    reports: list[UnitReport] = []
    troubles: dict[Unit, str] = {}
    work_s = 0.0
    if before.pending:
        work_started = time.perf_counter()
        reports, troubles = _work(options, source, target, units, run_id, on_progress)
        work_s = time.perf_counter() - work_started
    ledger = make_ledger(table, units)
    embedded, rejected = (sum(getattr(r, name) for r in reports if r.created) for name in ("embedded", "rejected"))
    record: dict[str, Any] = {
        "status": "done",
        "run": run_id,
        "table": table.uri,
        "contract": contract.to_json(),
        "ledger": ledger.to_json(),
        "new": {"embedded": embedded, "rejected": rejected},
        "rejects_by_code": count_codes(table, units) if ledger.rejected else {},
        "skipped_files": dict(source.skipped),
        "changed_images": changed,
        "engines": sorted({report.engine for report in reports if report.engine}),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        "images_per_s": round((embedded + rejected) / work_s, 2) if work_s else 0.0,
        "stage_s": {name: round(sum(getattr(r, name) for r in reports), 3) for name in ("read_s", "embed_s")},
        "options": {k: storage.redact(v) if isinstance(v, str) else v for k, v in options.record().items()},
    }
    everything = list_units(planned_refs(table))
    digests = {
        Unit(r.plan, r.unit, r.num_images): (r.data_sha256, r.rejects_sha256)
        for r in reports
        if r.data_sha256 is not None and r.rejects_sha256 is not None
    }
    for plan in sorted({unit.plan for unit in units}):
        members = [unit for unit in everything if unit.plan == plan]
        write_manifest(table, target.info, members, {k: record[k] for k in _MANIFEST_FIELDS}, digests)
    return _judge(record, troubles, options)


_MANIFEST_FIELDS = ("run", "started", "seconds", "images_per_s", "stage_s", "engines", "options")


def _work(
    options: RunOptions,
    source: Source,
    target: Target,
    units: list[Unit],
    run_id: str,
    on_progress: ProgressCallback | None,
) -> tuple[list[UnitReport], dict[Unit, str]]:
    """Do the pending units on Ray, in passes for as long as a pass gets some of them done."""
    contract, table = target.info.contract, target.table
    spec = EngineSpec(options.engine, options.precision, options.device, options.batch_size, options.num_actors)
    identity = {"run": run_id, "contract": contract.to_json()}
    reports: list[UnitReport] = []
    troubles: dict[Unit, str] = {}
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
        with watch(counter, _progress_reporter(table, units, reports, on_progress)):
            pending = pending_units(table, units)
            while pending:
                troubles.clear()
                try:
                    for report in embed_units(
                        table,
                        pending,
                        source,
                        target.backbone,
                        spec,
                        layout,
                        limits=Limits(options.max_image_pixels, options.max_image_bytes),
                        embedding_type=target.embedding_type,
                        finish=target.finish,
                        run=identity,
                        counter=counter,
                    ):
                        if report.hopeless:
                            raise ConfigError(str(report.trouble))
                        reports.append(report)
                        if report.trouble is not None:
                            troubles[Unit(report.plan, report.unit, report.num_images)] = report.trouble
                except (RayError, SystemException) as error:
                    first_line = (str(error) or type(error).__name__).splitlines()[0]
                    troubles[pending[0]] = f"Ray stopped: {type(error).__name__}: {first_line}"
                left = pending_units(table, units)
                if len(left) == len(pending):
                    break
                pending = left
    return reports, troubles


def _progress_reporter(
    table: Table, units: list[Unit], reports: list[UnitReport], on_progress: ProgressCallback | None
) -> Callable[[int], None]:
    start, before = time.monotonic(), make_ledger(table, units)

    def report(through_engine: int) -> None:
        if on_progress is None:
            return
        committed = [report for report in reports if report.trouble is None]
        finished = sum(report.embedded + report.rejected for report in committed)
        new = min(max(through_engine, finished), before.pending)
        done = before.planned - before.pending + new
        rejected = before.rejected + sum(report.rejected for report in committed)
        on_progress(Progress(before.planned, done, rejected, new, time.monotonic() - start))

    return report


def _skipped_text(source: Source) -> str:
    if not source.skipped:
        return ""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in source.skipped.most_common(5))
    return f" ({sum(source.skipped.values())} files passed over, not images by their names: {kinds})"


def _judge(record: dict[str, Any], troubles: dict[Unit, str], options: RunOptions) -> dict[str, Any]:
    ledger = record["ledger"]
    if ledger["pending"]:
        record["status"] = "pending"
        reasons = list(troubles.values()) or ["A task failed or its process died; --verbose shows Ray's log."]
        more = f" (and {len(reasons) - 1} more units in trouble)" if len(reasons) > 1 else ""
        raise RunIncomplete(
            f"{ledger['pending']} of {ledger['planned']} images are pending. {reasons[0]}{more}\n"
            "Nothing is lost: run the same command again to go on where it stopped.",
            record,
        )
    fraction = ledger["rejected"] / ledger["planned"]
    if fraction > options.max_reject_fraction:
        record["status"] = "too_many_rejects"
        codes = ", ".join(f"{count} {code}" for code, count in record["rejects_by_code"].items())
        raise TooManyRejects(
            f"{ledger['rejected']} of {ledger['planned']} images were rejected ({codes}), a share of {fraction:.3f}; "
            f"--max-reject-fraction allows {options.max_reject_fraction}. All others are in the table. "
            f"See {record['table']}/rejects/*.parquet for each image and its reason.",
            record,
        )
    return record
