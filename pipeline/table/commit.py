"""The commit protocol: how a unit's rows get into the table, whole or not at all, whoever else is at it.

A unit passes through three states, and no step leads back:

    PENDING        neither file is there; the unit may be tried any number of times
    REJECTS FIXED  its rejects file is there: which of its images are rejects is settled
    COMMITTED      its data file is there: what every reader counts

Each step is one create-only PUT under a name that only this unit has. The rejects go first, always, even when there are
none: so the first writer to get there settles them for every other one (a second driver, a retried task, a process
that slept), who then commit the rest of the unit or nothing. A reader counts rejects of committed units only.

Where a unit holds images that another one was to hold, the other one's rows leave it between the two steps, see
`pipeline.table.close`: so old and new row are never both there. That is how changed images replace their old selves,
how rejects are taken up again, and how the images of a unit get out of settled rejects that have become wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RejectsSettled
from pipeline.failpoints import reach
from pipeline.table.amend import encode, read_footer, read_whole, told
from pipeline.table.close import supersede
from pipeline.table.plan import Unit
from pipeline.table.schema import Table


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed unit.

    Args:
        embedded: Rows in its data file.
        rejected: Rows in its rejects file.
        created: Whether this run committed it, by this call or by an earlier one whose answer was lost; False: another
            run did, and nothing was changed.
        sha256: Digests (hex) of the data file and the rejects file, where this call wrote both; else None.
        num_bytes: Length of the files that this call wrote.
    """

    embedded: int
    rejected: int
    created: bool
    sha256: tuple[str, str] | None = None
    num_bytes: int = 0


def commit_unit(
    table: Table,
    unit: Unit,
    rows: pa.Table,
    rejects: pa.Table,
    run: dict[str, Any],
    replaces: Mapping[str, pa.Array | None] | None = None,
) -> Committed:
    """Commit one unit.

    Args:
        table: Where it belongs.
        unit: Which one it is.
        rows: One row for each image that gave a result, with a column ``uri``.
        rejects: One row for each image that did not, of `pipeline.table.schema.REJECT_SCHEMA`.
        run: What made the rows, as plain JSON values; stored in the files' metadata.
        replaces: By the name of an older unit, the URIs of the rows that this unit replaces; None for all of its rows.

    Raises:
        RejectsSettled: An earlier attempt settled other rejects than this one found, so the unit can't be completed.
        OSError: The storage refused; the unit stays pending.
    """
    if unit.num_images is not None and len(rows) + len(rejects) != unit.num_images:
        raise AssertionError(f"unit {unit} promises {unit.num_images} images, got {len(rows)} + {len(rejects)}")
    metadata = {"plan": unit.plan, "unit": unit.number, **run}
    rejects_file = encode(rejects, metadata)
    reach("rejects_put", unit.name)
    settled_here = table.store.put_if_absent(table.rejects_uri(unit.name), rejects_file)
    if not settled_here:
        rows, rejects = _follow_settled_rejects(table, unit, rows, rejects)
    for name, uris in (replaces or {}).items():
        supersede(table, name, uris, unit, rows, run)
    data_file = encode(rows, metadata)
    reach("data_put", unit.name)
    if table.store.put_if_absent(table.data_uri(unit.name), data_file):
        reach("committed", unit.name)
        digests = hashlib.sha256(data_file).hexdigest(), hashlib.sha256(rejects_file).hexdigest()
        num_bytes = len(data_file) + (len(rejects_file) if settled_here else 0)
        return Committed(len(rows), len(rejects), True, digests if settled_here else None, num_bytes)
    counts = count_rows(table, unit.name)
    return Committed(counts.rows, counts.rejects, created="run" in run and counts.run == run["run"])


def _follow_settled_rejects(table: Table, unit: Unit, rows: pa.Table, rejects: pa.Table) -> tuple[pa.Table, pa.Table]:
    uri = table.rejects_uri(unit.name)
    settled = read_whole(table, uri)
    new = rejects.filter(pc.invert(pc.is_in(rejects["uri"], settled["uri"].combine_chunks())))
    if len(new) and table.store.info(table.data_uri(unit.name)) is None:
        raise RejectsSettled(
            f"{len(new)} image(s) of this unit became unreadable after an earlier attempt had settled its rejects in "
            f"{uri} (the first: {new['uri'][0]}: {new['message'][0]}). They are to be promised again."
        )
    return rows.filter(pc.invert(pc.is_in(rows["uri"], settled["uri"].combine_chunks()))), settled


@dataclass(frozen=True, slots=True)
class Counts:
    """What a committed unit holds.

    Args:
        rows: Rows in its data file.
        rejects: Rows in its rejects file.
        reused: How many of the rows have an embedding that was copied, not computed; as of the unit's commit.
        run: The run that committed it, as far as the data file was read for this.
        amended: Whether one of its files was replaced since then, as far as they were read for this.
    """

    rows: int
    rejects: int
    reused: int = 0
    run: str | None = None
    amended: bool = False


def count_rows(table: Table, name: str) -> Counts:
    """Return what a committed unit holds, from its files' footers."""
    data, rejects = read_footer(table, table.data_uri(name)), read_footer(table, table.rejects_uri(name))
    of_data, of_rejects = told(data.metadata), told(rejects.metadata)
    return Counts(
        data.num_rows,
        rejects.num_rows,
        min(of_data.get("reused", 0), data.num_rows),
        of_data.get("run"),
        amended="rows_taken_out" in of_data or "rows_taken_out" in of_rejects,
    )


def sha256_of(table: Table, uri: str) -> str:
    """Return the SHA-256 (hex) of a stored file."""
    return hashlib.sha256(table.store.read_bytes(uri)).hexdigest()
