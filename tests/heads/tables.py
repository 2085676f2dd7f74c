"""Small embedding tables: rows of (content, label, split, embedding), in as many files as a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from pipeline.choices import EmbeddingType
from pipeline.contract import FeatureContract
from pipeline.table import Table, TableInfo, Unit, commit_unit, create_table, data_schema
from pipeline.table.schema import REJECT_SCHEMA

#: Content (stands for an image's SHA-256), label, split, embedding.
Row = tuple[str, str | None, str | None, Sequence[float]]


def contract(dim: int) -> FeatureContract:
    """Return a contract of features of D values."""
    return FeatureContract("pixels", "00", {"name": "p"}, dim, "none")


CONTRACT = contract(2)


def write_table(
    uri: str | Path,
    values: Sequence[Row],
    dtype: EmbeddingType = "float32",
    rows_per_file: int | Sequence[int] | None = None,
) -> str:
    """Write a table of (content, label, split, embedding).

    Args:
        uri: Where.
        values: The rows; of none, a table of two dimensions is written.
        dtype: Type of the stored embeddings.
        rows_per_file: Rows of each file, the last one may have fewer; or the number of each; unset: one file.
    """
    contents, labels, splits, embeddings = map(list, zip(*values, strict=True)) if values else ([], [], [], [])
    X = np.asarray(embeddings) if values else np.zeros((0, 2))
    return write_arrays(uri, X, labels, splits, contents, dtype, rows_per_file)


def write_arrays(
    uri: str | Path,
    X: ArrayLike,
    labels: Sequence[str | None],
    splits: Sequence[str | None] | None = None,
    contents: Sequence[str] | None = None,
    dtype: EmbeddingType = "float32",
    rows_per_file: int | Sequence[int] | None = None,
) -> str:
    """Write a table of embeddings of shape (N, D); unset: no splits, and contents that all differ."""
    X = np.asarray(X, np.float16 if dtype == "float16" else np.float32)
    count, dim = X.shape
    splits = splits or [None] * count
    contents = contents or [f"content {i}" for i in range(count)]
    table = Table(str(uri))
    create_table(table, TableInfo("embeddings", contract(dim), dtype))
    schema = data_schema(dtype, dim)
    for number, (start, end) in enumerate(pairwise(_bounds(count, rows_per_file))):
        rows = pa.Table.from_arrays(
            [
                pa.array([str(i) for i in range(start, end)]),
                pa.array(contents[start:end], pa.string()),
                pa.array(labels[start:end], pa.string()),
                pa.array(splits[start:end], pa.string()),
                *2 * [pa.array([1] * (end - start), pa.int32())],
                pa.FixedSizeListArray.from_arrays(pa.array(X[start:end].ravel()), dim),
            ],
            schema=schema,
        )
        commit_unit(table, Unit("plan", number, end - start), rows, REJECT_SCHEMA.empty_table(), {})
    return str(uri)


def _bounds(count: int, rows_per_file: int | Sequence[int] | None) -> list[int]:
    if rows_per_file is None:
        return [0, count]
    if isinstance(rows_per_file, int):
        return [*range(0, count, rows_per_file), count]
    bounds = [0, *np.cumsum(rows_per_file).tolist()]
    assert bounds[-1] == count, f"Expected files of {count} rows, got {bounds[-1]}"
    return bounds
