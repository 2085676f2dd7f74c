"""Manifests for tests, and what the manifest source makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import ImageReject, RejectCode
from pipeline.refs import REF_SCHEMA
from pipeline.sources import Fetched
from pipeline.sources.manifest import ManifestSource
from tests import samples


def listed(source: ManifestSource) -> pa.Table:
    tables = list(source.refs(1024))
    for table in tables:
        table.validate(full=True)
        assert table.schema == pa.schema([*REF_SCHEMA, *source.columns()])
    return pa.concat_tables(tables) if tables else pa.schema([*REF_SCHEMA, *source.columns()]).empty_table()


def write(folder: Path, name: str, text: str) -> str:
    return str(samples.write(folder / name, text.encode()))


def version(path: Path) -> str:
    return f"{path.stat().st_size}-{path.stat().st_mtime_ns}"


def columns_of(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def verdicts(source: ManifestSource) -> list[tuple[str, str]]:
    """Return each row's URI, and the code of its verdict or its version."""
    rows = columns_of(listed(source), "uri", "version")
    return [(uri, text.split(":")[1] if text.startswith("reject:") else text) for uri, text in rows]


def images(source: ManifestSource, max_bytes: int = 100) -> list[tuple[str, bytes | RejectCode]]:
    reading = source.read(listed(source), max_bytes)
    return [(found.uri, outcome(found)) for found in reading.images()]


def outcome(fetched: Fetched) -> bytes | RejectCode:
    if isinstance(fetched.data, ImageReject):
        assert fetched.data.stage == "read"
        return fetched.data.code
    return fetched.data
