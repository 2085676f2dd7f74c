"""What must be true of a table, read from its bytes with pyarrow alone."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow.parquet as pq

from tests.memory_store import MemoryStore

#: A file's rows, by their URIs.
Rows = dict[str, dict[str, Any]]


@lru_cache(maxsize=4096)
def read(data: bytes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of a Parquet file, and what its metadata tells."""
    table = pq.read_table(io.BytesIO(data))
    return table.to_pylist(), json.loads((table.schema.metadata or {}).get(b"vep", b"{}"))


@dataclass
class Oracle:
    """Looks at a table after each step, and remembers how it was before.

    Args:
        store: What holds the table.
        root: The table's folder.
    """

    store: MemoryStore
    root: str
    _before: dict[str, bytes] = field(default_factory=dict)

    def files(self, folder: str) -> dict[str, bytes]:
        """Return the content of the files of a folder, by their names without suffix."""
        prefix = f"{self.root}/{folder}/"
        found = {uri.removeprefix(prefix): data for uri, data in self.store.files.items() if uri.startswith(prefix)}
        return {name.partition(".")[0]: data for name, data in sorted(found.items())}

    def rows(self, folder: str) -> dict[str, Rows]:
        """Return the rows of a folder's files, by the files' names."""
        return {name: by_uri(data) for name, data in self.files(folder).items()}

    def check(self) -> None:
        """Check what must be true at any moment."""
        if self.store.files == self._before:
            return
        data, rejects = self.rows("data"), self.rows("rejects")
        assert data.keys() <= rejects.keys(), "a data file came before its rejects file"
        counts = Counter(uri for rows in data.values() for uri in rows)
        assert max(counts.values(), default=1) == 1, f"two rows of one image: {counts.most_common(1)}"
        counts.update(uri for name in data for uri in rejects[name])
        assert max(counts.values(), default=1) == 1, f"an image is in a data and in a rejects file: {counts}"
        for uri, before in self._before.items():
            self._check_change(uri, before)
        self._check_manifests()
        self._before = dict(self.store.files)

    def _check_change(self, uri: str, before: bytes) -> None:
        assert uri in self.store.files, f"{uri} is gone"
        now = self.store.files[uri]
        if now == before or "/manifests/" in uri:
            return
        assert "/data/" in uri or "/rejects/" in uri, f"{uri} has changed"
        assert by_uri(now).items() <= by_uri(before).items(), f"{uri} has won rows, or rows have changed"

    def _check_manifests(self) -> None:
        """What a manifest names has the digest and the rows that it gives, at any moment."""
        for plan, content in self.files("manifests").items():
            manifest = json.loads(content)
            for file in manifest["files"]:
                now = self.store.files[f"{self.root}/{file['path']}"]
                assert hashlib.sha256(now).hexdigest() == file["sha256"], f"{file['path']} isn't as {plan}.json says"
                assert len(by_uri(now)) == file["rows"], f"{file['path']} has other rows than {plan}.json says"
            if len(manifest["files"]) == 2 * manifest["num_units"] and manifest["num_units"]:
                ledger = Counter({"embedded": 0, "rejected": 0})
                for file in manifest["files"]:
                    ledger["embedded" if file["path"].startswith("data/") else "rejected"] += file["rows"]
                assert dict(ledger) == {name: manifest["ledger"][name] for name in ledger}, plan

    def holders(self, until: int | None = None) -> dict[tuple[str, bool], str]:
        """Return the unit that holds each image or container by the plans, up to one of them.

        Args:
            until: The last plan to go by; None for all.

        Returns:
            By the name of the image or container, and whether it is a container.
        """
        holders: dict[tuple[str, bool], str] = {}
        for number, content in self.files("plans").items():
            if until is not None and int(number) > until:
                break
            refs, told = read(content)
            for ref in refs:
                key = ref["uri"], told["containers"]
                holders.pop(key, None)
                if ref["unit"] >= 0:
                    holders[key] = f"{told['name']}-{ref['unit']:06d}"
        return holders

    def check_done(self) -> None:
        """Check what must be true once nothing is pending: each image has one row, in the unit that holds it."""
        data, rejects = self.rows("data"), self.rows("rejects")
        rows = {name: {**data[name], **rejects[name]} for name in data}
        left = Counter(uri for found in rows.values() for uri in found)
        for (name, container), unit in self.holders().items():
            assert unit in rows, f"{name} is pending: {unit}"
            mine = [uri for uri in rows[unit] if (uri.startswith(f"{name}#") if container else uri == name)]
            assert mine, f"{name} has neither a row nor a reject in {unit}"
            left.subtract(mine)
        assert not +left, f"rows of images that are promised no more, or by another unit: {+left}"
        for number, content in self.files("plans").items():
            _, told = read(content)
            manifest = json.loads(self.files("manifests").get(told["name"], b"null"))
            assert manifest is not None, f"plan {number} has no manifest"
            assert len(manifest["files"]) == 2 * told["num_units"], f"the manifest of plan {number} lacks files"


@lru_cache(maxsize=4096)
def by_uri(data: bytes) -> Rows:
    """Return the rows of a Parquet file by their URIs, of which none may come twice."""
    rows, _ = read(data)
    assert len({row["uri"] for row in rows}) == len(rows), "a URI comes twice in one file"
    return {row["uri"]: row for row in rows}
