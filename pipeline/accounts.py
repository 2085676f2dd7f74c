"""What a run says of itself: log lines, its record, the manifests, and whether it ended well."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from pipeline import storage
from pipeline.errors import RunIncomplete, TooManyRejects
from pipeline.run_options import WorkOptions
from pipeline.sources import Source
from pipeline.stages.costs import summed
from pipeline.table import (
    Ledger,
    Planned,
    Table,
    TableInfo,
    committed_names,
    is_complete,
    planned_changes,
    write_manifest,
)
from pipeline.task import Outcome

logger = logging.getLogger(__name__)

#: What a manifest says of the run that completed the plan.
_MANIFEST_FIELDS = (
    "run",
    "started",
    "seconds",
    "images_per_s",
    "stage_s",
    "engine_busy",
    "bytes_read",
    "bytes_written",
    "peak_memory_bytes",
    "engines",
    "options",
)


def new_work(outcome: Outcome) -> dict[str, Any]:
    """Return the part of the record that tells what this run has done."""
    created = {report.name: report for report in outcome.reports if report.created}.values()
    new = {name: sum(getattr(report, name) for report in created) for name in ("embedded", "reused", "rejected")}
    done = new["embedded"] + new["rejected"]
    return {
        "new": new,
        "engines": sorted({report.engine for report in outcome.reports if report.engine}),
        "images_per_s": round(done / outcome.seconds, 2) if outcome.seconds else 0.0,
        **summed(report.costs for report in outcome.reports),
    }


def redacted(value: Any) -> Any:
    """Return JSON values with every URI in them redacted."""
    if isinstance(value, dict):
        return {name: redacted(each) for name, each in value.items()}
    if isinstance(value, list):
        return [redacted(each) for each in value]
    return storage.redact(value) if isinstance(value, str) else value


def write_manifests(table: Table, info: TableInfo, planned: Planned, record: dict[str, Any], outcome: Outcome) -> None:
    """Write the manifests of all plans that are complete and have none, or one that lacks files."""
    digests = {
        report.name: (report.data_sha256, report.rejects_sha256)
        for report in outcome.reports
        if report.data_sha256 is not None and report.rejects_sha256 is not None
    }
    committed = committed_names(table)
    for units in planned.plan_units.values():
        if any(unit.name not in committed for unit in units) or is_complete(table, units):
            continue
        run_record = {name: record[name] for name in _MANIFEST_FIELDS}
        changes = partial(planned_changes, table, planned)
        write_manifest(table, info, units, run_record, digests, changes)


def log_plan(planned: Planned, before: Ledger, source: Source) -> None:
    """Say what there is to do, and what is odd about the source."""
    changes = [
        f"{count} {what}"
        for count, what in (
            (planned.new, "new"),
            (planned.changed, "changed"),
            (planned.pruned, "pruned"),
            (planned.again, "again"),
        )
        if count
    ]
    logger.info(
        "%d images planned%s, %d done before, %d to do%s.",
        before.planned,
        f" ({', '.join(changes)})" if changes else "",
        before.embedded + before.rejected,
        before.pending,
        skipped_text(source),
    )
    kept = planned.removed - planned.pruned
    if kept:
        logger.warning("%d image(s) of this source are gone. Their rows stay; --prune takes them out.", kept)
    if planned.repeated:
        logger.warning("%d image(s) are named more than once by the source; each counts once.", planned.repeated)


def skipped_text(source: Source) -> str:
    """Return what was passed over while listing, in brackets."""
    if not source.skipped:
        return ""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in source.skipped.most_common(5))
    return f" ({sum(source.skipped.values())} files passed over, not images by their names: {kinds})"


def judge(record: dict[str, Any], outcome: Outcome, options: WorkOptions, planned: Planned) -> dict[str, Any]:
    """Return the record of a run that ended well.

    Raises:
        RunIncomplete: Images are pending.
        TooManyRejects: More images were rejected than the run allows.
    """
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
