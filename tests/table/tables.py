"""Whole tables, written straight through the table's own functions: no Ray, no images."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.contract import FeatureContract
from pipeline.refs import REF_SCHEMA
from pipeline.table import (
    Planned,
    Table,
    TableInfo,
    Unit,
    commit_unit,
    committed_names,
    create_table,
    forget_files,
    pending_units,
    planned_changes,
    take_back,
    unit_refs,
    write_manifest,
)
from pipeline.table.amend import encode
from pipeline.table.close import replaced_rows
from pipeline.table.schema import REJECT_SCHEMA, data_schema
from tests.memory_store import MemoryStore, Writer
from tests.table.test_planning import plan

CONTRACT = FeatureContract("pixels", "00", {"name": "p"}, 2, "none")
INFO = TableInfo("embeddings", CONTRACT, "float32")
RUN = {"run": "r1", "contract": CONTRACT.to_json()}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def refs(*uris: str, version: str = "1") -> pa.Table:
    values = [{"uri": uri, "version": version, "num_images": 1, "label": "x", "split": None} for uri in uris]
    return pa.Table.from_pylist(values, schema=REF_SCHEMA)


def containers(*uris: str, version: str = "1", num_images: int | None = None) -> pa.Table:
    values = [{"uri": uri, "version": version, "num_images": num_images} for uri in uris]
    return pa.Table.from_pylist(values, schema=REF_SCHEMA)


def rows(*uris: str) -> pa.Table:
    values = [
        {"uri": uri, "sha256": digest(uri), "label": "x", "width": 1, "height": 1, "embedding": [1.0, 2.0]}
        for uri in uris
    ]
    return pa.Table.from_pylist(values, schema=data_schema("float32", 2))


def rejects(*uris: str) -> pa.Table:
    values = [{"uri": uri, "stage": "read", "code": "missing", "message": "gone"} for uri in uris]
    return pa.Table.from_pylist(values, schema=REJECT_SCHEMA)


def make(folder: Path) -> Table:
    """Return a table that is there, and empty."""
    table = Table(str(folder))
    create_table(table, INFO)
    return table


def commit(table: Table, unit: Unit, rejected: str = "", members: int = 3) -> None:
    """Commit a unit as the stages do; a container has some members, one of them rejected.

    Args:
        table: Where.
        unit: Which.
        rejected: Names of images that become rejects.
        members: How many images a container has, where its plan doesn't say.
    """
    promised = unit_refs(table, unit)
    uris, is_container = promised["uri"].to_pylist(), promised["num_images"][0].as_py() != 1
    replaces = replaced_rows(promised, is_container)
    bad = [uri for uri in uris if uri in rejected]
    if is_container:
        total = promised["num_images"][0].as_py() or members
        uris = [f"{uris[0]}#{number}" for number in range(total)]
        bad = uris[-1:]
    good = [uri for uri in uris if uri not in bad]
    commit_unit(table, Unit(unit.plan, unit.number, None), rows(*good), rejects(*bad), RUN, replaces)


def run(table: Table, planned: Planned, rejected: str = "", members: int = 3) -> Planned:
    """Do what a run does once it has planned, as `pipeline.runs` does."""
    taken_back = take_back(table, planned.plans, lambda names: forget_files(table, names))
    forget_files(table, planned.replaced)
    for unit in pending_units(table, planned.units):
        commit(table, unit, rejected, members)
    forget_files(table, planned.replaced | taken_back)
    write_manifests(table, planned)
    return planned


def write_manifests(table: Table, planned: Planned) -> None:
    """Write the manifests of complete plans."""
    committed = committed_names(table)
    for units in planned.plan_units.values():
        if all(unit.name in committed for unit in units):
            write_manifest(table, INFO, units, {}, {}, lambda: planned_changes(table, planned))


def embed(table: Table, *uris: str, version: str = "1", prune: bool = False, rejected: str = "") -> Planned:
    """Plan images in units of two, and do them."""
    return run(table, plan(table, refs(*uris, version=version), prune=prune), rejected)


def path(table: Table, folder: str, number: int = 0) -> Path:
    """Return the path of a unit's file, by its number in the order of names."""
    return sorted(Path(table.uri, folder).glob("*.parquet"))[number]


def rewrite(file: Path, content: pa.Table, **metadata: Any) -> None:
    """Replace a unit's file, its metadata kept but for what is given."""
    told = json.loads(pq.read_schema(file).metadata[b"vep"])
    file.write_bytes(encode(content, {**told, **metadata}))


def forget_manifests(table: Table) -> None:
    """Remove the manifests, as if the last run had been killed before it wrote them."""
    for file in Path(table.uri, "manifests").glob("*.json"):
        file.unlink()


def all_uris(table: Table, folder: str) -> Iterator[str]:
    files = sorted(Path(table.uri, folder).glob("*.parquet"))
    return itertools.chain.from_iterable(pq.read_table(file)["uri"].to_pylist() for file in files)


class BusyStore:
    """A store on which a run does its next writes whenever somebody else reads.

    Args:
        store: What holds the files.
        run: The run.
        after: How many reads are left alone first.
        writes: How many writes come before each read from there on.
    """

    def __init__(self, store: MemoryStore, run: Writer, after: int, writes: int) -> None:
        self._store, self._run, self._writes = store, run, writes
        self._reads, self._after, self._lock = 0, after, threading.Lock()

    @property
    def begun(self) -> bool:
        """Whether there were more reads than were left alone."""
        return self._reads > self._after

    def __getattr__(self, name: str) -> Any:
        def read(*arguments: Any) -> Any:
            with self._lock:  # several threads read, and only one thing happens at a time
                self._reads += 1
                for _ in range(self._writes if self._reads > self._after else 0):
                    self._write()
                return getattr(self._store, name)(*arguments)

        return read

    def _write(self) -> None:
        while self._run.next is not None:
            wrote = self._run.next.writes
            self._run.step()
            if wrote:
                return
