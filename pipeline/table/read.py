"""Read a table's rows into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import storage
from pipeline.errors import TableError
from pipeline.table.schema import Table

_PARALLEL_READS = 8
#: Bytes fetched at a time where only some columns of a file are read.
_COLUMN_BLOCK_BYTES = 2**18
#: Bytes of each column read at a time where a file is read bit by bit.
_BUFFER_BYTES = 2**20


def data_files(table: Table) -> list[str]:
    """Return the URIs of the data files, in order."""
    names = table.store.list_names(f"{table.uri}/data")
    return [f"{table.uri}/data/{name}" for name in names if name.endswith(".parquet")]


def read_rows(table: Table, columns: Sequence[str]) -> pa.Table:
    """Read columns of every committed row, in the order of the files; a column that a file lacks is null there.

    Raises:
        TableError: The table has no committed rows, or none of its files has one of the columns.
    """
    parts = list(iter_files(table, columns))
    rows = pa.concat_tables((part for _, part in parts), promote_options="default") if parts else None
    if rows is None or not len(rows):
        raise TableError(f"Expected embeddings in {table.uri}, but it has no rows yet. Run jobs.embed first.")
    missing = [name for name in columns if name not in rows.column_names]
    if missing:
        raise TableError(f"Expected columns {', '.join(missing)} in {table.uri}, found {', '.join(rows.column_names)}.")
    return rows.select(list(columns))


def iter_files(table: Table, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """Yield each data file's URI and those of the columns that it has; a few files are read ahead."""
    uris = data_files(table)
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for start in range(0, len(uris), 4 * _PARALLEL_READS):
            part = uris[start : start + 4 * _PARALLEL_READS]
            yield from zip(part, pool.map(lambda uri: read_file(table, uri, columns), part), strict=True)


def read_file(table: Table, uri: str, columns: Sequence[str]) -> pa.Table:
    """Read those of some columns that a data file has.

    Raises:
        TableError: It can't be read as Parquet.
    """
    try:
        with _open(table, uri, whole="embedding" in columns) as stream, pq.ParquetFile(stream) as file:
            there = set(file.schema_arrow.names)
            return file.read([name for name in columns if name in there]).replace_schema_metadata(None)
    except pa.ArrowException as error:
        raise TableError(f"Expected rows with {', '.join(columns)} in {uri}, but it can't be read: {error}") from None


def iter_rows(table: Table, uri: str, columns: Sequence[str], num_rows: int) -> Iterator[pa.Table]:
    """Yield a data file's rows, so many at a time; of a local file, no more of it is in memory.

    Raises:
        TableError: It can't be read as Parquet.
    """
    try:
        # pre_buffer would read all of a row group first, which is all of the file.
        options = {"buffer_size": _BUFFER_BYTES, "pre_buffer": False}
        with _open(table, uri, whole=True) as stream, pq.ParquetFile(stream, **options) as file:
            for batch in file.iter_batches(num_rows, columns=list(columns)):
                yield pa.Table.from_batches([batch]).replace_schema_metadata(None)
    except pa.ArrowException as error:
        raise TableError(f"Expected rows with {', '.join(columns)} in {uri}, but it can't be read: {error}") from None


def _open(table: Table, uri: str, whole: bool) -> Any:
    if storage.scheme(uri) == "file":
        return pa.OSFile(storage.local_path(uri))  # as the local store would, but read without Python's lock
    return BytesIO(table.store.read_bytes(uri)) if whole else table.store.open(uri, _COLUMN_BLOCK_BYTES)


def embeddings(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Return an embedding column as one array.

    Returns:
        float32 of shape (N, D).
    """
    dim = column.type.list_size
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim) for chunk in column.chunks if len(chunk)]
    if not chunks:
        return np.zeros((0, dim), np.float32)
    return np.concatenate(chunks).astype(np.float32, copy=False)
