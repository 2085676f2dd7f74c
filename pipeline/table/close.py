"""Close a unit that another one takes the place of, so that whoever is still at work on it comes too late."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.table.amend import encode, take_out
from pipeline.table.plan import Plan, Unit, read_plan, unit_refs
from pipeline.table.schema import REJECT_SCHEMA, Table, sequence_of


def supersede(table: Table, name: str, uris: pa.Array | None, by: Unit, rows: pa.Table, run: dict[str, Any]) -> None:
    """Take what a unit replaces out of an older one, and close that one first if it was never committed.

    Args:
        table: Where both are.
        name: The older unit's name.
        uris: Whose rows leave it; None for all of its rows.
        by: The unit that replaces them.
        rows: That unit's rows, for their columns.
        run: What identifies the run, stored in the metadata of files that this creates.

    Raises:
        TransientError: Other runs replaced the older unit's files again and again meanwhile.
        OSError: The storage refused.
    """
    if table.store.info(table.data_uri(name)) is None:
        _close(table, name, by, rows, run)
    take_out(table, name, uris)


def _close(table: Table, name: str, by: Unit, rows: pa.Table, run: dict[str, Any]) -> None:
    """Commit a pending unit without any row: after that, its data file can't be created any more.

    A writer that settled its rejects long ago may come before that, and its rows are then taken out as any other's.
    """
    plan = read_plan(table, sequence_of(name))
    unit = Unit(plan.name, int(name.rpartition("-")[2]), None)
    for older, uris in replaced_rows(unit_refs(table, unit), plan.containers).items():
        supersede(table, older, uris, by, rows, run)
    metadata = {"plan": plan.name, "unit": unit.number, **run, "closed_by": by.name}
    if not table.store.put_if_absent(table.rejects_uri(name), encode(REJECT_SCHEMA.empty_table(), metadata)):
        take_out(table, name, None)
    table.store.put_if_absent(table.data_uri(name), encode(_empty(table, plan, by, rows), metadata))


def _empty(table: Table, plan: Plan, by: Unit, rows: pa.Table) -> pa.Table:
    """Return no rows, with the columns that all files of a plan have."""
    later = set(read_plan(table, sequence_of(by.name)).columns.names) - set(plan.columns.names)
    return rows.slice(0, 0).drop_columns([name for name in rows.column_names if name in later])


def replaced_rows(refs: pa.Table, containers: bool) -> dict[str, pa.Array | None]:
    """Return the URIs of the rows that a unit replaces, by the older unit's name; None for all of that unit's.

    Args:
        refs: Rows with ``uri`` and ``replaces``.
        containers: Whether the unit is a container, which takes the place of another one whole.
    """
    names = [name for name in pc.unique(refs["replaces"]).to_pylist() if name is not None]
    if containers:
        return dict.fromkeys(names)
    uris = refs["uri"]
    return {name: uris.filter(pc.equal(refs["replaces"], name)).combine_chunks() for name in names}
