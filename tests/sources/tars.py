"""Tars for tests, and what the WebDataset source makes of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from pipeline.errors import ImageReject
from pipeline.refs import REF_SCHEMA
from pipeline.sources.webdataset import WebDatasetSource
from pipeline.storage import LocalStore
from tests import samples

Member = tuple[str, bytes] | tarfile.TarInfo
A, B, C = (samples.jpeg(seed) for seed in range(3))


def tar_bytes(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def pack(path: Path, *members: Member) -> str:
    return str(samples.write(path, tar_bytes(*members)))


def read(
    uri: str, max_bytes: int = 10**6, store: LocalStore | None = None, **options: Any
) -> tuple[dict[str, bytes | str], list[dict[str, Any]]]:
    """Return what a shard gives, bytes or reject code by URI without the shard's, and its rows."""
    source = WebDatasetSource(uri, store, **options)
    table = pa.Table.from_pylist([{"uri": uri, "version": "1"}], schema=REF_SCHEMA)
    reading = source.read(table, max_bytes)
    fetched = list(reading.images())
    given = {each.uri.removeprefix(uri): code(each.data) for each in fetched}
    assert len(given) == len(fetched)  # URIs are unique
    rows = reading.rows()
    assert rows["uri"].to_pylist() == [each.uri for each in fetched]
    assert rows.schema.field("label").type == rows.schema.field("split").type == pa.string()
    return given, [{**row, "uri": row["uri"].removeprefix(uri)} for row in rows.to_pylist()]


def code(data: bytes | ImageReject) -> bytes | str:
    if isinstance(data, ImageReject):
        assert data.stage == "read"
        return data.code.value
    return data


def messages(uri: str) -> list[str]:
    table = pa.Table.from_pylist([{"uri": uri, "version": "1"}], schema=REF_SCHEMA)
    fetched = WebDatasetSource(uri).read(table, 10**6).images()
    return [each.data.message for each in fetched if isinstance(each.data, ImageReject)]


class FailingStore(LocalStore):
    """A store whose files can be read up to a place only."""

    def __init__(self, length: int, error: Exception) -> None:
        self.length, self.error = length, error

    def open(self, uri: str, block_bytes: int = 0) -> IO[bytes]:
        file, length, error = super().open(uri), self.length, self.error

        class File(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = super().read(min(size or 0, 200))
                if self.tell() > length:
                    raise error
                return data

        with file:
            return File(file.read())
