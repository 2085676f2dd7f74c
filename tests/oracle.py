"""The oracle of every fault test: what a table must be, whatever happened. Reads with pyarrow and fsspec alone."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Found:
    """What a table holds.

    Args:
        rows: URIs of the rows, in order.
        rejects: Codes by the URIs of the rejects.
    """

    rows: list[str]
    rejects: dict[str, str]


def check(table_uri: str, planned: Iterable[str], storage_options: dict[str, Any] | None = None) -> Found:
    """Check a complete table, and return what it holds.

    Committed rows and rejects are the planned images, each once; every file of a finished plan is named by its manifest
    with the digest that it has; nothing lies about that belongs to nobody.
    """
    fs, root = fsspec.core.url_to_fs(table_uri, **(storage_options or {}))
    fs.invalidate_cache()

    def names(folder: str) -> list[str]:
        path = f"{root}/{folder}"
        return sorted(name.rpartition("/")[2] for name in fs.ls(path, detail=False)) if fs.exists(path) else []

    def read(path: str) -> bytes:
        return bytes(fs.cat_file(f"{root}/{path}"))

    data = {name for name in names("data") if not name.startswith(".")}
    rejected = {name for name in names("rejects") if not name.startswith(".")}
    assert data == rejected, "each unit has both files"
    assert [
        name for folder in ("data", "rejects", "plans", "manifests") for name in names(folder) if ".tmp" in name
    ] == []
    content = {f"{folder}/{name}": read(f"{folder}/{name}") for folder in ("data", "rejects") for name in sorted(data)}
    tables = {path: pq.read_table(io.BytesIO(content[path])) for path in content}
    rows = [uri for path, table in tables.items() if path.startswith("data/") for uri in table["uri"].to_pylist()]
    codes = [
        (row["uri"], row["code"])
        for path, table in tables.items()
        if path.startswith("rejects/")
        for row in table.select(["uri", "code"]).to_pylist()
    ]
    assert sorted([*rows, *(uri for uri, _ in codes)]) == sorted(planned), "every planned image has exactly one row"
    manifests = {
        name.removesuffix(".json"): json.loads(read(f"manifests/{name}"))
        for name in names("manifests")
        if name[0] != "."
    }
    listed = {file["path"]: file for manifest in manifests.values() for file in manifest["files"]}
    assert set(listed) == set(content), "the manifests name every file"
    for path, file in listed.items():
        assert hashlib.sha256(content[path]).hexdigest() == file["sha256"], path
        assert len(tables[path]) == file["rows"], path
    return Found(rows, dict(codes))
