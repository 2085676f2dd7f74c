"""The commit protocol: how a unit's rows get into the table, whole or not at all, whoever else is at it.

A unit passes through three states, and no step leads back:

    PENDING        neither file is there; the unit may be tried any number of times
    REJECTS FIXED  its rejects file is there: which of its images are rejects is settled
    COMMITTED      its data file is there: what every reader counts

Each step is one create-only PUT under a name that only this unit has. The rejects go first, always, even when there are
none: so the first writer to get there settles them for every other one (a second driver, a retried task, a process
that slept), who then commit the rest of the unit or nothing. A reader counts rejects of committed units only.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import TransientError
from pipeline.table.plan import Unit
from pipeline.table.schema import Table


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed unit.

    Args:
        embedded: Rows in its data file.
        rejected: Rows in its rejects file.
        created: Whether this call committed it; False: it was committed already, and nothing was changed.
        sha256: Digests (hex) of the data file and the rejects file, where this call wrote both; else None.
    """

    embedded: int
    rejected: int
    created: bool
    sha256: tuple[str, str] | None = None


def commit_unit(table: Table, unit: Unit, rows: pa.Table, rejects: pa.Table, run: dict[str, Any]) -> Committed:
    """Commit one unit.

    Args:
        table: Where it belongs.
        unit: Which one it is.
        rows: One row for each image that gave a result, with a column ``uri``.
        rejects: One row for each image that did not, of `pipeline.table.schema.REJECT_SCHEMA`.
        run: What made the rows, as plain JSON values; stored in the files' metadata.

    Raises:
        TransientError: An earlier attempt settled other rejects than this one found, so the unit can't be completed.
        OSError: The storage refused; the unit stays pending.
    """
    if len(rows) + len(rejects) != unit.num_images:
        raise AssertionError(f"unit {unit} promises {unit.num_images} images, got {len(rows)} + {len(rejects)}")
    metadata = {b"vep": json.dumps({"plan": unit.plan, "unit": unit.number, **run}).encode()}
    rejects_file = encode(rejects, metadata)
    settled_here = storage.put_if_absent(table.rejects_uri(unit.plan, unit.number), rejects_file)
    if not settled_here:
        rows, rejects = _follow_settled_rejects(table, unit, rows, rejects)
    data_file = encode(rows, metadata)
    if storage.put_if_absent(table.data_uri(unit.plan, unit.number), data_file):
        digests = hashlib.sha256(data_file).hexdigest(), hashlib.sha256(rejects_file).hexdigest()
        return Committed(len(rows), len(rejects), created=True, sha256=digests if settled_here else None)
    return Committed(*count_rows(table, unit), created=False)


def _follow_settled_rejects(table: Table, unit: Unit, rows: pa.Table, rejects: pa.Table) -> tuple[pa.Table, pa.Table]:
    uri = table.rejects_uri(unit.plan, unit.number)
    settled = pq.read_table(storage.local_path(uri))
    new = rejects.filter(pc.invert(pc.is_in(rejects["uri"], settled["uri"].combine_chunks())))
    if len(new) and not storage.exists(table.data_uri(unit.plan, unit.number)):
        raise TransientError(
            f"{len(new)} image(s) of this unit became unreadable after an earlier attempt had settled its rejects in "
            f"{uri} (the first: {new['uri'][0]}: {new['message'][0]}). Restore them and run again; or, if no other run "
            "is at work on this table, delete that file and run again."
        )
    return rows.filter(pc.invert(pc.is_in(rows["uri"], settled["uri"].combine_chunks()))), settled


def count_rows(table: Table, unit: Unit) -> tuple[int, int]:
    """Return how many rows and how many rejects a committed unit has, from the files' footers."""
    uris = table.data_uri(unit.plan, unit.number), table.rejects_uri(unit.plan, unit.number)
    embedded, rejected = (pq.read_metadata(storage.local_path(uri)).num_rows for uri in uris)
    return embedded, rejected


def encode(rows: pa.Table, metadata: dict[bytes, bytes]) -> bytes:
    """Return a Parquet file's bytes.

    Labels and splits repeat, so they get a dictionary; embeddings don't compress and don't repeat, so they get none.
    """
    buffer = io.BytesIO()
    names = set(rows.column_names)
    pq.write_table(
        rows.replace_schema_metadata(metadata),
        buffer,
        row_group_size=max(1, len(rows)),
        use_dictionary=sorted(names & {"label", "split", "predicted_label"}),
        compression={name: "NONE" if name == "embedding" else "ZSTD" for name in names},
    )
    return buffer.getvalue()


def sha256_of(uri: str) -> str:
    """Return the SHA-256 (hex) of a stored file."""
    with storage.open_stream(uri) as file:
        digest = hashlib.sha256()
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
