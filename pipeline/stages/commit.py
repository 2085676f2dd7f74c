"""Commit a unit and report what became of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.errors import RejectsSettled
from pipeline.failures import Verdict, find
from pipeline.refs import extra_schema, stored, unify
from pipeline.stages.costs import COSTS_TYPE, NO_COSTS, Costs, costs_of, peak_bytes
from pipeline.table import Table, Unit, commit_unit, unit_name
from pipeline.table.close import replaced_rows
from pipeline.table.schema import IMAGE_FIELDS, REJECT_SCHEMA

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What became of one unit; what the driver sees of it.

    Args:
        plan: The unit's plan.
        unit: Its number in the plan.
        num_images: How many images it promises.
        embedded: Rows committed for it.
        rejected: Rejects committed for it.
        reused: How many of the embedded ones have an embedding that was copied, not computed.
        created: Whether this run committed it.
        trouble: Why it stays pending; None where it is committed.
        hopeless: Whether ``trouble`` is such that no other try can help.
        bound: Whether it can't ever be committed as it is, since other rejects of it are settled; its images are to be
            promised again in a new unit.
        costs: What was spent on it.
        data_sha256: Digest (hex) of the data file, where this run wrote it.
        rejects_sha256: Digest (hex) of the rejects file, where this run wrote it.
        engine: What executed the network, see `pipeline.engines.EngineInfo`; empty where nothing was embedded.
    """

    plan: str
    unit: int
    num_images: int | None
    embedded: int = 0
    rejected: int = 0
    reused: int = 0
    created: bool = False
    trouble: str | None = None
    hopeless: bool = False
    bound: bool = False
    costs: Costs = NO_COSTS
    data_sha256: str | None = None
    rejects_sha256: str | None = None
    engine: str = ""

    @property
    def name(self) -> str:
        """The unit's name."""
        return unit_name(self.plan, self.unit)


#: Makes a data file's columns from the good rows of a plan's unit: `IMAGE_FIELDS`, ``embedding`` and the extra columns,
#: or `IMAGE_FIELDS` and ``derived``.
Finish = Callable[[pa.Table, str], pa.Table]


def commit_block(
    block: pa.Table,
    table: Table,
    finish: Finish,
    run: dict[str, Any],
    on_committed: Callable[[str, list[str]], None] | None = None,
) -> UnitReport:
    """Commit a unit.

    Args:
        block: What `embed_unit` or `derive_unit` returned.
        table: Where the unit belongs.
        finish: Makes the data file's columns.
        run: What identifies the run, stored in the files' metadata.
        on_committed: Called with a data file's URI and the SHA-256 (hex) of its rows' images, once it is there.
    """
    names = ["plan", "unit", "num_images", "container", "trouble", "hopeless", "engine"]
    (first,) = block.slice(0, 1).select(names).to_pylist()
    unit = Unit(first["plan"], first["unit"], first["num_images"])
    report = UnitReport(
        unit.plan,
        unit.number,
        unit.num_images,
        trouble=first["trouble"],
        hopeless=first["hopeless"],
        costs=costs_of(block),
        engine=first["engine"],
    )
    if report.trouble is not None:
        return report
    replaces = replaced_rows(block, first["container"])
    block = _only(block, block["present"])
    good = pc.is_null(block["code"])
    try:
        rows = finish(_results(_only(block, good)), unit.plan)
        rejects = block.filter(pc.invert(good)).select(REJECT_SCHEMA.names).cast(REJECT_SCHEMA)
        reused = int(pc.sum(pc.and_(good, pc.invert(block["computed"]))).as_py() or 0)
        details = {**run, "engine": report.engine, "reused": reused}
        # What a container holds is what was found in it.
        promised = Unit(unit.plan, unit.number, None) if first["container"] else unit
        committed = commit_unit(table, promised, rows, rejects, details, replaces)
    except RejectsSettled as error:
        return replace(report, trouble=str(error), bound=True)
    except Exception as error:  # whatever it is, the unit stays pending, and the driver must know why
        storage.log_traceback(logger, "A unit can't be committed.")
        hopeless = find(error).verdict is Verdict.FATAL
        return replace(report, trouble=storage.explained(error, "It can't be committed"), hopeless=hopeless)
    if committed.created and on_committed is not None:
        on_committed(table.data_uri(unit.name), rows["sha256"].to_pylist())
    data_sha256, rejects_sha256 = committed.sha256 or (None, None)
    costs = replace(report.costs, bytes_written=committed.num_bytes)
    return replace(
        report,
        embedded=committed.embedded,
        rejected=committed.rejected,
        reused=min(reused, committed.embedded),
        created=committed.created,
        costs=costs,
        data_sha256=data_sha256,
        rejects_sha256=rejects_sha256,
    )


def _only(rows: pa.Table, mask: pa.ChunkedArray) -> pa.Table:
    """Return some of the rows; where it is all of them, without a copy."""
    return rows if pc.all(mask).as_py() else rows.filter(mask)


def _results(rows: pa.Table) -> pa.Table:
    names = [field.name for field in IMAGE_FIELDS]
    if "derived" in rows.column_names:
        return rows.select([*names, "derived"])
    columns = rows.select([*names, "embedding"])
    if "extras" not in rows.column_names:
        return columns
    extras = rows["extras"].combine_chunks()
    for place, field in enumerate(extras.type):
        columns = columns.append_column(field, extras.field(place))
    return columns


#: The columns of a report on its way to the driver.
REPORT_SCHEMA = pa.schema(
    [
        ("plan", pa.string()),
        ("unit", pa.int64()),
        ("num_images", pa.int64()),
        ("embedded", pa.int64()),
        ("rejected", pa.int64()),
        ("reused", pa.int64()),
        ("created", pa.bool_()),
        ("trouble", pa.string()),
        ("hopeless", pa.bool_()),
        ("bound", pa.bool_()),
        ("costs", COSTS_TYPE),
        ("data_sha256", pa.string()),
        ("rejects_sha256", pa.string()),
        ("engine", pa.string()),
    ]
)


def commit_and_report(
    block: pa.Table,
    table: Table,
    finish: Finish,
    run: dict[str, Any],
    on_committed: Callable[[str, list[str]], None] | None = None,
) -> pa.Table:
    """Commit a unit as Ray Data wants it: from a block to a block, here of one row, a `UnitReport`."""
    start = time.perf_counter()
    report = commit_block(block, table, finish, run, on_committed)
    costs = replace(report.costs, commit_s=time.perf_counter() - start, commit_peak_bytes=peak_bytes())
    report = replace(report, costs=costs)
    pa.default_memory_pool().release_unused()  # up to 50 MB, which each of a node's processes would keep from then on
    return pa.Table.from_pylist([asdict(report)], schema=REPORT_SCHEMA)


def to_schema(rows: pa.Table, plan: str, schema: pa.Schema, columns: Mapping[str, pa.Schema]) -> pa.Table:
    """Return the rows of a data file.

    Args:
        rows: What was found.
        plan: The name of the plan that the unit is of.
        schema: The columns that every table has.
        columns: The extra columns that the table has from each plan on, by the plan's name. All files of a plan have
            these and no others, null where the rows have none, since readers go by the columns of the first file.

    Raises:
        ConfigError: An extra column has another type than the table's.
    """
    wanted, found = columns[plan], stored(extra_schema(rows.schema))
    unify([("the table", wanted), ("the source", found)])
    unknown = [name for name in found.names if name not in wanted.names]
    if unknown:
        logger.warning("Left out, since the first samples don't have them: %s. Name them by --columns.", unknown)
    fixed = rows.select(schema.names).cast(schema)
    for field in wanted:
        there = field.name in rows.column_names
        values = rows[field.name].cast(field.type) if there else pa.nulls(len(rows), field.type)
        fixed = fixed.append_column(field, values)
    return fixed
