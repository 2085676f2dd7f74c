"""Reading a data file bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import TableError
from pipeline.table import Table, data_schema, encode, iter_rows, read_file

COLUMNS = ["uri", "label", "embedding"]


def write(table: Table, num_rows: int, dim: int) -> str:
    vectors = np.random.default_rng(0).random((num_rows, dim), np.float32)
    size = np.ones(num_rows, np.int32)
    names = [str(i) for i in range(num_rows)]
    columns = [names, names, [None] * num_rows, ["train"] * num_rows, size, size]
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim)
    schema = data_schema("float32", dim)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=False)]
    uri = table.data_uri("part")
    table.store.put_if_absent(uri, encode(pa.Table.from_arrays([*arrays, embedding], schema=schema), {}))
    return uri


@pytest.mark.parametrize("at_once", [1, 7, 20, 100])
def test_iter_rows__gives_the_whole_file_in_parts(at_once: int, tmp_path: Path) -> None:
    table = Table(str(tmp_path))
    uri = write(table, 20, 3)
    parts = list(iter_rows(table, uri, COLUMNS, at_once))
    assert all(len(part) <= at_once for part in parts)
    assert pa.concat_tables(parts).combine_chunks().equals(read_file(table, uri, COLUMNS).combine_chunks())


def test_iter_rows__holds_a_part_of_the_file_in_memory(tmp_path: Path) -> None:
    table = Table(str(tmp_path))
    uri = write(table, 20_000, 512)  # 41 MB
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in iter_rows(table, uri, COLUMNS, 1000))
    assert most < 20e6


def test_iter_rows__says_which_file_is_damaged(tmp_path: Path) -> None:
    table = Table(str(tmp_path))
    table.store.put_if_absent(table.data_uri("part"), b"PAR1 damaged PAR1")
    with pytest.raises(TableError, match="part.parquet, but it can't be read"):
        list(iter_rows(table, table.data_uri("part"), COLUMNS, 10))
