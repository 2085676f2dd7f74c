"""Parquet files for tests, a store that counts what is read of them, and what a source makes of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ImageReject
from pipeline.sources.base import Source
from pipeline.storage import LocalStore
from tests import samples

HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class CountingFile:
    """A local file that notes which bytes are read, and fails once it is told to."""

    def __init__(self, file: IO[bytes], store: CountingStore) -> None:
        self._file, self._store = file, store
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    @property
    def closed(self) -> bool:
        return self._file.closed

    def read(self, size: int = -1) -> bytes:
        if self._store.error is not None:
            raise self._store.error
        self._store.reads.append((self._file.tell(), size))
        return self._file.read(size)


class CountingStore(LocalStore):
    """Local files; notes what is opened and read."""

    def __init__(self) -> None:
        self.opened = 0
        self.reads: list[tuple[int, int]] = []
        self.error: Exception | None = None

    def open(self, uri: str, block_bytes: int = 0) -> IO[bytes]:
        self.opened += 1
        return CountingFile(super().open(uri), self)  # type: ignore[return-value]


def images(*seeds: int) -> pa.Array:
    return pa.array([samples.jpeg(seed) for seed in seeds], pa.binary())


def write(path: Path, columns: dict[str, Any], row_group_size: int = 4, metadata: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": metadata}})})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def write_numbers(path: Path, num_rows: int, row_group_size: int = 4, image_bytes: int = 1000) -> Path:
    """Write rows whose images are no images, but bytes that tell the rows apart and don't compress."""
    data = [row.to_bytes(4, "big") + os.urandom(image_bytes) for row in range(num_rows)]
    columns = {"image": pa.array(data, pa.binary()), "number": pa.array(range(num_rows), pa.int64())}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size, use_dictionary=False, compression="none")
    return path


def refs(source: Source, unit_size: int = 1024) -> list[pa.Table]:
    """Return each slice's ref, as the table of one row that a unit promises."""
    tables = list(source.refs(unit_size))
    return [table.slice(row, 1) for table in tables for row in range(len(table))]


def read(source: Source, ref: pa.Table, max_bytes: int = 10**6) -> tuple[list[bytes | ImageReject], pa.Table]:
    reading = source.read(ref, max_bytes)
    fetched = list(reading.images())
    rows = reading.rows()
    assert rows["uri"].to_pylist() == [image.uri for image in fetched]
    return [image.data for image in fetched], rows


def read_all(source: Source, unit_size: int = 1024) -> pa.Table:
    return pa.concat_tables(read(source, ref)[1] for ref in refs(source, unit_size))


def reject(data: bytes | ImageReject) -> ImageReject:
    assert isinstance(data, ImageReject)
    assert data.stage == "read"
    return data
