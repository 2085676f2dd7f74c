"""Take rows out of a committed unit: its file is replaced whole, under its own name, if nobody replaced it before."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import TransientError
from pipeline.table.plan import Plan, plan_batches
from pipeline.table.schema import Table

#: Other writers that may replace the same file first before this one gives up for now.
_ATTEMPTS = 20
#: Units that rows are taken out of at once.
_PARALLEL = 8
#: Bytes fetched for a footer.
_FOOTER_BYTES = 2**16
#: Columns of few different values.
_DICTIONARY_COLUMNS = frozenset(("label", "split", "predicted_label", "stage", "code"))


def take_out(table: Table, name: str, uris: pa.Array | None, note: str | None = None) -> int:
    """Take rows out of a committed unit, data and rejects alike.

    Doing it again changes nothing. It never puts a row in, so it can't bring back what another run has taken out.

    Args:
        table: Where the unit is.
        name: The unit's name.
        uris: Whose rows; None for all rows.
        note: The plan that asks for it, noted in the data file; where it is noted already, there is nothing to do.

    Returns:
        How many rows were taken out.

    Raises:
        TransientError: Other runs replaced the file again and again meanwhile.
        OSError: The storage refused.
    """
    return _take_out_of(table, table.rejects_uri(name), uris) + _take_out_of(table, table.data_uri(name), uris, note)


def is_noted(table: Table, name: str, note: str) -> bool:
    """Return whether a unit is without the rows that a plan takes back, or is not there."""
    try:
        data = read_footer(table, table.data_uri(name))
    except FileNotFoundError:
        return True
    return note in told(data.metadata).get("taken_out_by", [])


def _take_out_of(table: Table, uri: str, uris: pa.Array | None, note: str | None = None) -> int:
    for _ in range(_ATTEMPTS):
        info = table.store.info(uri)
        if info is None:
            return 0
        rows = read_whole(table, uri)
        kept = rows.slice(0, 0) if uris is None else rows.filter(pc.invert(pc.is_in(rows["uri"], value_set=uris)))
        metadata = told(rows.schema.metadata)
        if len(kept) == len(rows) and (note is None or note in metadata.get("taken_out_by", [])):
            return 0  # there was nothing to do, or it was done by a PUT whose answer was lost
        if note is not None:
            metadata["taken_out_by"] = sorted({*metadata.get("taken_out_by", []), note})
        metadata["rows_taken_out"] = metadata.get("rows_taken_out", 0) + len(rows) - len(kept)
        if table.store.replace_if(uri, encode(kept, metadata), info.version):
            return len(rows) - len(kept)
    raise TransientError(f"{uri} was replaced by other runs {_ATTEMPTS} times in a row. Run again once they are done.")


def encode(rows: pa.Table, metadata: dict[str, Any]) -> bytes:
    """Return the bytes of a Parquet file of one row group.

    Labels and splits repeat, so they get a dictionary. Embeddings don't compress and don't repeat, so they get none;
    and the least and the greatest of their values tell nobody anything.

    Args:
        rows: What it holds.
        metadata: Plain JSON values, stored under the key ``vep``.
    """
    buffer = io.BytesIO()
    names, leaves = set(rows.column_names), _leaves(rows.schema)
    vectors = {path for path in leaves if path.startswith("embedding.")}
    pq.write_table(
        rows.replace_schema_metadata({b"vep": json.dumps(metadata).encode()}),
        buffer,
        row_group_size=max(1, len(rows)),
        use_dictionary=sorted(names & _DICTIONARY_COLUMNS),
        # By leaf: a nested column has one setting for each of its parts.
        compression={path: "NONE" if path in vectors else "ZSTD" for path in leaves},
        write_statistics=[path for path in leaves if path not in vectors],
    )
    return buffer.getvalue()


def read_whole(table: Table, uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file of a unit, fetched at once; all of its columns or some."""
    return pq.read_table(io.BytesIO(table.store.read_bytes(uri)), columns=columns)


def read_footer(table: Table, uri: str) -> pq.FileMetaData:
    """Read the footer of a file of a unit."""
    with table.store.open(uri, _FOOTER_BYTES) as file:
        return pq.read_metadata(file)


def told(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Return what `encode` has stored in a file's metadata.

    Raises:
        ValueError: It is damaged.
    """
    value: dict[str, Any] = json.loads((metadata or {}).get(b"vep", b"{}"))
    return value


@lru_cache(maxsize=16)
def _leaves(schema: pa.Schema) -> tuple[str, ...]:
    parquet = pq.ParquetFile(_empty_file(schema)).schema
    return tuple(parquet.column(place).path for place in range(len(parquet)))


def _empty_file(schema: pa.Schema) -> io.BytesIO:
    buffer = io.BytesIO()
    pq.write_table(schema.empty_table(), buffer)
    buffer.seek(0)
    return buffer


def take_back(table: Table, plans: Sequence[Plan], before: Callable[[set[str]], None]) -> set[str]:
    """Take out the rows of images that plans without units have taken back, where that is still to be done.

    Args:
        table: Where the plans are.
        plans: The table's plans.
        before: Called with the names of units before any of their rows is taken out.

    Returns:
        The names of the units that rows were taken out of.
    """
    done: set[str] = set()
    for plan in plans:
        marker = table.manifest_uri(plan.name)
        if plan.num_units or table.store.info(marker) is not None:
            continue
        for refs in plan_batches(table, plan):
            with ThreadPoolExecutor(_PARALLEL) as pool:
                names = refs["replaces"].unique().to_pylist()
                noted = pool.map(lambda name, note=plan.name: is_noted(table, name, note), names)
                names = [name for name, there in zip(names, noted, strict=True) if not there]
                before(set(names))
                uris = {name: refs["uri"].filter(pc.equal(refs["replaces"], name)).combine_chunks() for name in names}
                whole = plan.containers
                list(
                    pool.map(
                        lambda name, note=plan.name, whole=whole, uris=uris: take_out(
                            table, name, None if whole else uris[name], note=note
                        ),
                        names,
                    )
                )
            done.update(names)
        table.store.put_if_absent(
            marker, (json.dumps({"plan": plan.name, "num_units": 0, "files": []}) + "\n").encode()
        )
    return done
