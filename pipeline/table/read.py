"""Read a table's rows into memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import storage
from pipeline.errors import TableError
from pipeline.table.schema import Table


def data_files(table: Table) -> list[str]:
    """Return the URIs of the data files, in order."""
    return [f"{table.uri}/data/{name}" for name in storage.list_names(f"{table.uri}/data") if name.endswith(".parquet")]


def read_rows(table: Table, columns: Sequence[str]) -> pa.Table:
    """Read columns of every committed row, in the order of the files.

    Raises:
        TableError: The table has no committed rows.
    """
    parts = [_read_file(uri, columns) for uri in data_files(table)]
    rows = pa.concat_tables(parts) if parts else None
    if rows is None or not len(rows):
        raise TableError(f"Expected embeddings in {table.uri}, but it has no rows yet. Run jobs.embed first.")
    return rows


def _read_file(uri: str, columns: Sequence[str]) -> pa.Table:
    try:
        return pq.read_table(storage.local_path(uri), columns=list(columns))
    except pa.ArrowException as error:
        raise TableError(f"Expected rows with {', '.join(columns)} in {uri}, but it can't be read: {error}") from None


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
