"""Measure writing: files as units have them, put where the table is or will be, and taken away again.

The files are called ``.probe-….tmp`` and lie beside table.json: no reader of ``data/*.parquet`` sees them, and should
this process be killed before it has removed them, they are temporary files as `jobs.verify --clean` knows them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.doctor.pace import Pace, in_turn, side_by_side
from pipeline.table import Table, encode
from pipeline.table.schema import REJECT_SCHEMA

logger = logging.getLogger(__name__)

#: Units that are written at once.
WRITERS = 4


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Args:
        pace: How fast, by `WRITERS` at once; an image is a row.
        left: Files that could not be removed again: their URIs, and why.
    """

    pace: Pace
    left: dict[str, str]


@contextlib.contextmanager
def place_for(table: Table | None) -> Iterator[Table]:
    """Yield where to write: at the table; in the next folder above one that isn't there yet; in a temporary folder."""
    if table is None:
        with tempfile.TemporaryDirectory(prefix="vep-") as folder:
            yield Table(folder)
    elif storage.scheme(table.uri) != "file":
        yield table
    else:
        path = Path(storage.local_path(table.uri))
        yield Table(str(next(place for place in (path, *path.parents) if place.is_dir())), table.store)


def write_for(table: Table, rows: pa.Table, seconds: float) -> Written:
    """Write units for so many seconds.

    Args:
        table: Where.
        rows: A unit's rows, as `embedding_rows` makes them.
        seconds: How long.

    Raises:
        OSError: The storage refuses.
    """
    left: dict[str, str] = {}
    with ThreadPoolExecutor(WRITERS) as pool:
        cpu = time.process_time()
        parts = list(pool.map(partial(_write_units, table, rows, seconds, left), range(WRITERS)))
        cpu_s = time.process_time() - cpu
    pace = side_by_side(parts)
    return Written(Pace(pace.images, pace.seconds, cpu_s, pace.num_bytes), left)


def _write_units(table: Table, rows: pa.Table, seconds: float, left: dict[str, str], writer: int) -> Pace:
    paces: list[Pace] = []
    while not paces or in_turn(paces).seconds < seconds:
        uris = [f"{table.uri}/.probe-{writer}-{part}.{secrets.token_hex(6)}.tmp" for part in ("rejects", "data")]
        try:
            paces.append(_write_unit(table, uris, rows))
        finally:
            for uri in uris:
                _remove(table, uri, left)
        if left:
            break
    return in_turn(paces)


def _write_unit(table: Table, uris: list[str], rows: pa.Table) -> Pace:
    """Write a unit as `pipeline.table.commit` does: its rejects, of which there are none, then its rows."""
    started, num_bytes = time.perf_counter(), 0
    for uri, part in zip(uris, (REJECT_SCHEMA.empty_table(), rows), strict=True):
        data = encode(part, {})
        table.store.put_if_absent(uri, data)
        num_bytes += len(data)
    return Pace(len(rows), time.perf_counter() - started, 0.0, num_bytes)


def _remove(table: Table, uri: str, left: dict[str, str]) -> None:
    try:
        table.store.remove(uri)
    except OSError as error:
        left[uri] = storage.explained(error)
        logger.warning("%s was written and can't be removed: %s Remove it yourself.", uri, left[uri])


def embedding_rows(refs: pa.Table, num_rows: int, schema: pa.Schema) -> pa.Table:
    """Return rows of an embedding table for some refs, over and over, with random embeddings.

    Args:
        refs: Of a sample.
        num_rows: How many rows.
        schema: The table's, as `pipeline.table.data_schema` gives it.
    """
    places = pa.array(np.arange(num_rows) % len(refs))
    known = refs.select(["uri", "label", "split"]).take(places)
    vector = schema.field("embedding").type
    values = np.random.default_rng(0).standard_normal(num_rows * vector.list_size, np.float32)
    values = values.astype(vector.value_type.to_pandas_dtype())
    columns = {
        **dict(zip(known.column_names, known.columns, strict=True)),
        "sha256": pa.array([os.urandom(32).hex() for _ in range(num_rows)]),
        **dict.fromkeys(("width", "height"), pa.array(np.full(num_rows, 500, np.int32))),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values), type=vector),
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)
