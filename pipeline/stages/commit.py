"""Commit a unit and report what became of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.table import Table, Unit, commit_unit
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
        created: Whether this run committed it.
        trouble: Why it stays pending; None where it is committed.
        hopeless: Whether ``trouble`` is such that no other try can help.
        read_s: Seconds spent reading and decoding.
        embed_s: Seconds spent in the engine.
        data_sha256: Digest (hex) of the data file, where this run wrote it.
        rejects_sha256: Digest (hex) of the rejects file, where this run wrote it.
        engine: What executed the network, see `pipeline.engines.EngineInfo`; empty where nothing was embedded.
    """

    plan: str
    unit: int
    num_images: int
    embedded: int = 0
    rejected: int = 0
    created: bool = False
    trouble: str | None = None
    hopeless: bool = False
    read_s: float = 0.0
    embed_s: float = 0.0
    data_sha256: str | None = None
    rejects_sha256: str | None = None
    engine: str = ""


def commit_block(
    block: pa.Table, table: Table, finish: Callable[[pa.Table], pa.Table], run: dict[str, Any]
) -> UnitReport:
    """Commit a unit.

    Args:
        block: What `embed_unit` returned.
        table: Where the unit belongs.
        finish: Makes the data file's columns from the good rows, which have `IMAGE_FIELDS` and ``embedding``.
        run: What identifies the run, stored in the files' metadata.
    """
    names = ["plan", "unit", "num_images", "trouble", "hopeless", "read_s", "embed_s", "engine"]
    (first,) = block.slice(0, 1).select(names).to_pylist()
    unit = Unit(first["plan"], first["unit"], first["num_images"])
    report = UnitReport(
        unit.plan,
        unit.number,
        unit.num_images,
        trouble=first["trouble"],
        hopeless=first["hopeless"],
        read_s=first["read_s"],
        embed_s=first["embed_s"],
        engine=first["engine"],
    )
    if report.trouble is not None:
        return report
    good = pc.is_null(block["code"])
    try:
        rows = finish(block.filter(good).select([*(field.name for field in IMAGE_FIELDS), "embedding"]))
        rejects = block.filter(pc.invert(good)).select(REJECT_SCHEMA.names).cast(REJECT_SCHEMA)
        committed = commit_unit(table, unit, rows, rejects, {**run, "engine": report.engine})
    except Exception as error:  # whatever it is, the unit stays pending, and the driver must know why
        logger.exception("A unit can't be committed.")
        return replace(report, trouble=f"It can't be committed: {type(error).__name__}: {error}")
    data_sha256, rejects_sha256 = committed.sha256 or (None, None)
    return replace(
        report,
        embedded=committed.embedded,
        rejected=committed.rejected,
        created=committed.created,
        data_sha256=data_sha256,
        rejects_sha256=rejects_sha256,
    )


#: The columns of a report on its way to the driver.
REPORT_SCHEMA = pa.schema(
    [
        ("plan", pa.string()),
        ("unit", pa.int64()),
        ("num_images", pa.int64()),
        ("embedded", pa.int64()),
        ("rejected", pa.int64()),
        ("created", pa.bool_()),
        ("trouble", pa.string()),
        ("hopeless", pa.bool_()),
        ("read_s", pa.float64()),
        ("embed_s", pa.float64()),
        ("data_sha256", pa.string()),
        ("rejects_sha256", pa.string()),
        ("engine", pa.string()),
    ]
)


def commit_and_report(
    block: pa.Table, table: Table, finish: Callable[[pa.Table], pa.Table], run: dict[str, Any]
) -> pa.Table:
    """Commit a unit as Ray Data wants it: from a block to a block, here of one row, a `UnitReport`."""
    return pa.Table.from_pylist([asdict(commit_block(block, table, finish, run))], schema=REPORT_SCHEMA)


def to_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows with a schema's columns, in its order and types."""
    return rows.select(schema.names).cast(schema)
