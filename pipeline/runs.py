"""A run: bring every image of a source into a table, however often it is interrupted on the way."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline import cluster, storage
from pipeline.contract import require_same_features
from pipeline.engines import require_here
from pipeline.errors import ConfigError, RunIncomplete, TableError, TooManyRejects
from pipeline.graph import BackboneSpec
from pipeline.progress import ProgressCallback
from pipeline.run_options import RunOptions
from pipeline.sources import Source
from pipeline.stages.commit import Finish
from pipeline.table import (
    Counts,
    Ledger,
    Listing,
    Planned,
    Table,
    TableInfo,
    check_info,
    committed_names,
    count_codes,
    count_units,
    create_table,
    forget_files,
    is_complete,
    make_ledger,
    open_table,
    plan_source,
    planned_changes,
    read_info,
    take_back,
    write_manifest,
)
from pipeline.work import Outcome, Task, work

logger = logging.getLogger(__name__)

#: What a manifest says of the run that completed the plan.
_MANIFEST_FIELDS = ("run", "started", "seconds", "images_per_s", "stage_s", "engines", "options")


@dataclass(frozen=True, slots=True)
class Target:
    """What a run writes.

    Args:
        table: Where.
        info: What the table says of itself.
        backbone: What to embed with, meeting the table's contract.
        embedding_type: Arrow type of the embeddings on their way.
        finish: Gives what makes the data files' columns, for the extra columns that the table has from each plan on,
            by the plan's name.
    """

    table: Table
    info: TableInfo
    backbone: BackboneSpec
    embedding_type: pa.DataType
    finish: Callable[[Mapping[str, pa.Schema]], Finish]


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
    reuse = tuple(_open_reused(uri, options, target.info) for uri in options.reuse)
    if cluster.is_local():
        require_here(options.engine, options.precision, options.device)
    if contract.random_weights:
        logger.warning(
            "RANDOM WEIGHTS (%s): the backbone is not trained. Good for a trial; use trained weights for real work.",
            contract.weights,
        )
    planned = _plan(options, source, target)
    taken_back = take_back(table, planned.plans, lambda names: forget_files(table, names))
    counts = _count(table, planned)
    everything = [*planned.units, *planned.others]
    before = make_ledger(everything, counts)
    _log_plan(planned, before, source)
    run_id = secrets.token_hex(4)
    outcome = Outcome()
    if any(unit.name not in counts for unit in planned.units):
        forget_files(table, planned.replaced)
        identity = {"run": run_id, "contract": contract.to_json()}
        task = Task(
            table,
            planned.units,
            source,
            target.backbone,
            target.embedding_type,
            target.finish({plan.name: plan.columns for plan in planned.plans}),
            identity,
            reuse,
            before,
            target.info.kind == "embeddings",
        )
        outcome = work(task, options, on_progress)
        counts = _count(table, planned)
    ledger = make_ledger(everything, counts)
    record = {
        "status": "done",
        "run": run_id,
        "table": table.uri,
        "contract": contract.to_json(),
        "ledger": ledger.to_json(),
        **_new(outcome),
        "rejects_by_code": count_codes(table, [n for n, c in counts.items() if c.rejects]) if ledger.rejected else {},
        "source": {
            "identity": source.identity,
            "listed": planned.num_listed,
            "new": planned.new,
            "changed": planned.changed,
            "removed": planned.removed,
            "pruned": planned.pruned,
            "repeated": planned.repeated,
            "skipped": dict(source.skipped),
            "seconds": round(planned.seconds, 3),
        },
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        "options": _redacted(options.record()),
    }
    if not ledger.pending:
        forget_files(table, planned.replaced | taken_back)  # whoever has put them back meanwhile
        _write_manifests(target, planned, record, outcome)
    return _judge(record, outcome, options, planned)


def _plan(options: RunOptions, source: Source, target: Target) -> Planned:
    columns = source.columns()

    def refs(unit_size: int) -> Iterator[pa.Table]:
        created = False
        for part in source.refs(unit_size):
            if len(part) and not created:  # a table comes into being once there is something to put in
                create_table(target.table, target.info)
                created = True
            yield part

    listing = Listing(
        source.identity, source.containers, refs, columns, target.info.digest, options.unit_size, options.limit
    )
    planned = plan_source(target.table, listing, options.prune)
    if not planned.num_listed:
        raise ConfigError(f"Expected images in the source, found none{_skipped_text(source)}. Check --source.")
    return planned


def _redacted(value: Any) -> Any:
    """Return JSON values with every URI in them redacted."""
    if isinstance(value, dict):
        return {name: _redacted(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_redacted(each) for each in value]
    return storage.redact(value) if isinstance(value, str) else value


def _open_reused(uri: str, options: RunOptions, info: TableInfo) -> Table:
    """Open a table to copy embeddings from.

    Raises:
        ContractMismatch: It holds other features.
        TableError: It is no table of embeddings, or one of less precision.
    """
    table = open_table(uri, options.table_storage_options)
    stored = read_info(table)
    if stored.kind != "embeddings":
        raise TableError(f"Expected a table of embeddings at {table.uri} (--reuse), got one of {stored.kind}.")
    require_same_features(stored.contract, info.contract, f"Table {table.uri} (--reuse)", "Leave that --reuse out.")
    if stored.dtype != "float32" and info.dtype != stored.dtype:
        raise TableError(
            f"Expected float32 embeddings in {table.uri} (--reuse), got {stored.dtype}, which are less exact than "
            "those of this run would be. Leave that --reuse out."
        )
    return table


def _count(table: Table, planned: Planned) -> dict[str, Counts]:
    committed = committed_names(table)
    return count_units(table, [unit for unit in planned.units if unit.name in committed])


def _new(outcome: Outcome) -> dict[str, Any]:
    """Return the part of the record that tells what this run has done."""
    created = [report for report in outcome.reports if report.created]
    new = {name: sum(getattr(report, name) for report in created) for name in ("embedded", "reused", "rejected")}
    done = new["embedded"] + new["rejected"]
    stages = ("read_s", "embed_s")
    return {
        "new": new,
        "engines": sorted({report.engine for report in outcome.reports if report.engine}),
        "images_per_s": round(done / outcome.seconds, 2) if outcome.seconds else 0.0,
        "stage_s": {name: round(sum(getattr(report, name) for report in outcome.reports), 3) for name in stages},
    }


def _write_manifests(
    target: Target,
    planned: Planned,
    record: dict[str, Any],
    outcome: Outcome,
) -> None:
    table = target.table
    digests = {
        report.name: (report.data_sha256, report.rejects_sha256)
        for report in outcome.reports
        if report.data_sha256 is not None and report.rejects_sha256 is not None
    }
    committed = committed_names(table)
    for units in planned.plan_units.values():
        if any(unit.name not in committed for unit in units) or is_complete(table, units):
            continue
        all_counts = count_units(table, units)
        run_record = {name: record[name] for name in _MANIFEST_FIELDS}
        changes = partial(planned_changes, table, planned)
        write_manifest(table, target.info, units, run_record, all_counts, digests, changes)


def _log_plan(planned: Planned, before: Ledger, source: Source) -> None:
    changes = [
        f"{count} {what}"
        for count, what in ((planned.new, "new"), (planned.changed, "changed"), (planned.pruned, "pruned"))
        if count
    ]
    logger.info(
        "%d images planned%s, %d done before, %d to do%s.",
        before.planned,
        f" ({', '.join(changes)})" if changes else "",
        before.embedded + before.rejected,
        before.pending,
        _skipped_text(source),
    )
    kept = planned.removed - planned.pruned
    if kept:
        logger.warning("%d image(s) of this source are gone. Their rows stay; --prune takes them out.", kept)
    if planned.repeated:
        logger.warning("%d image(s) are named more than once by the source; each counts once.", planned.repeated)


def _skipped_text(source: Source) -> str:
    if not source.skipped:
        return ""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in source.skipped.most_common(5))
    return f" ({sum(source.skipped.values())} files passed over, not images by their names: {kinds})"


def _judge(record: dict[str, Any], outcome: Outcome, options: RunOptions, planned: Planned) -> dict[str, Any]:
    ledger = record["ledger"]
    if ledger["pending"]:
        record["status"] = "pending"
        reasons = list(outcome.troubles.values())
        if not reasons and planned.others:
            sources = {plan.name: plan.source for plan in planned.plans}
            names = ", ".join(sorted({sources[unit.plan] for unit in planned.others}))
            reasons = [f"An unfinished run of another source has promised them ({names}): run that one again first."]
        reasons = reasons or ["A task failed or its process died; --verbose shows Ray's log."]
        more = f" (and {len(reasons) - 1} more units in trouble)" if len(reasons) > 1 else ""
        raise RunIncomplete(
            f"{ledger['pending']} of {ledger['planned']} images are pending. {reasons[0]}{more}\n"
            "Nothing is lost: run the same command again to go on where it stopped.",
            record,
        )
    fraction = ledger["rejected"] / ledger["planned"] if ledger["planned"] else 0.0
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
