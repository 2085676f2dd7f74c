"""A small world of images that change, and what drivers and tasks do about them, by the table layer's own functions.

What a driver does here is what `pipeline.runs.run` does, in the same order, without Ray and without images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.contract import FeatureContract
from pipeline.errors import RejectsSettled, TransientError
from pipeline.refs import REF_SCHEMA
from pipeline.table import (
    Committed,
    Counts,
    FileDigests,
    Ledger,
    Listing,
    Planned,
    Table,
    TableInfo,
    Unit,
    commit_unit,
    committed_names,
    count_units,
    data_schema,
    forget_files,
    is_complete,
    make_ledger,
    pending_units,
    plan_source,
    planned_changes,
    replan,
    take_back,
    unit_refs,
    write_manifest,
)
from pipeline.table.close import replaced_rows
from pipeline.table.schema import REJECT_SCHEMA

INFO = TableInfo("embeddings", FeatureContract("pixels", "00", {"name": "p"}, 1, "none"), "float32")
#: What each source may list, and images a unit. Two of them have images in common; one has containers.
SOURCES = {"folder": ("abc", 2), "manifest": ("cd", 2), "tar": ("xy", 1)}
CONTAINERS = frozenset("xy")
#: These stay where they are, so that no source is ever without images.
NEVER_REMOVED = frozenset("adx")

#: Commits a unit, as `commit_unit` does; or a faulty one, for tests of the tests.
Commit = Callable[[Table, Unit, pa.Table, pa.Table, dict[str, Any], Mapping[str, pa.Array | None]], Committed]


@dataclass
class World:
    """What is out there.

    Args:
        versions: Of each image or container, by its name.
        listed: Names that each source has by now.
        unreadable: Images that can't be read by now, members of containers among them.
    """

    versions: dict[str, int] = field(default_factory=lambda: dict.fromkeys("abcdxy", 1))
    listed: dict[str, set[str]] = field(default_factory=lambda: {s: set(names) for s, (names, _) in SOURCES.items()})
    unreadable: set[str] = field(default_factory=set)

    def members(self, name: str) -> list[str]:
        """Return what is read in place of a name: itself, or the images of a container, one to three of them."""
        return [f"{name}#{n}" for n in range(self.versions[name] % 3 + 1)] if name in CONTAINERS else [name]

    def refs(self, source: str) -> Iterator[pa.Table]:
        """Yield what a source lists."""
        names = sorted(self.listed[source])
        values = [
            {"uri": n, "version": str(self.versions[n]), "num_images": None if source == "tar" else 1} for n in names
        ]
        for start in range(0, len(values), 2):
            yield pa.Table.from_pylist(values[start : start + 2], schema=REF_SCHEMA)

    def look(self, names: list[str], unreadable: set[str]) -> tuple[pa.Table, pa.Table]:
        """Return rows and rejects of what is read at this moment; a row's digest tells which version it is of."""
        rows, rejects = [], []
        for name in names:
            for uri in self.members(name):
                found = {"uri": uri, "sha256": str(self.versions[name])}
                if uri in self.unreadable | unreadable:
                    rejects.append({**found, "stage": "read", "code": "missing", "message": "gone"})
                else:
                    rows.append({**found, "width": 1, "height": 1, "embedding": [0.5]})
        schema = data_schema("float32", 1)
        return pa.Table.from_pylist(rows, schema=schema), pa.Table.from_pylist(rejects, schema=REJECT_SCHEMA)


def attempt(
    table: Table, world: World, commit: Commit, unit: Unit, containers: bool, run: str, unreadable: set[str]
) -> Committed:
    """Read a unit and commit it, as a task does."""
    refs = unit_refs(table, unit)
    replaces = replaced_rows(refs, containers)
    rows, rejects = world.look(refs["uri"].to_pylist(), unreadable)
    promised = Unit(unit.plan, unit.number, None) if containers else unit
    return commit(table, promised, rows, rejects, {"run": run}, replaces)


@dataclass
class Run:
    """A driver's run over one source.

    Args:
        table: Where the rows go.
        world: Where the images are.
        source: Which of its sources.
        name: Identifies the run.
        commit: Commits a unit.
        planned: What there is to do, once that is known.
        tried: Units that tasks may be at work on, with whether they are containers.
        digests: What tasks of this run have written.
        status: ``done`` or ``pending``, once the run has ended.
    """

    table: Table
    world: World
    source: str
    name: str
    commit: Commit = commit_unit
    planned: Planned | None = None
    listed: set[str] = field(default_factory=set)
    tried: dict[Unit, bool] = field(default_factory=dict)
    digests: dict[str, FileDigests] = field(default_factory=dict)
    ledger: Ledger | None = None
    status: str | None = None

    def plan(self, prune: bool) -> Planned:
        """Plan the source."""

        def refs(_: int) -> Iterator[pa.Table]:
            for part in self.world.refs(self.source):
                self.listed.update(part["uri"].to_pylist())
                yield part

        listing = Listing(self.source, self.source == "tar", refs, pa.schema([]), INFO.digest, SOURCES[self.source][1])
        return plan_source(self.table, listing, prune)

    def task(self, unit: Unit, unreadable: set[str]) -> None:
        """Try one unit, as one of this run's tasks."""
        committed = attempt(self.table, self.world, self.commit, unit, self.source == "tar", self.name, unreadable)
        if committed.sha256 is not None:
            self.digests[unit.name] = committed.sha256

    def work(self, plan: Callable[[], Planned]) -> None:
        """Do a run from its plan to its manifests."""
        table, planned = self.table, plan()
        taken_back = take_back(table, planned.plans, lambda names: forget_files(table, names))
        counts = self._count(planned)
        while any(unit.name not in counts for unit in planned.units):
            forget_files(table, planned.replaced)
            bound, known = self._pass(planned), {unit.name for unit in planned.units}
            planned = replan(table, INFO.digest, planned, bound)
            counts = self._count(planned)
            if {unit.name for unit in planned.units} <= known:
                break
        self.planned = planned
        ledger = make_ledger([*planned.units, *planned.others], counts)
        if not ledger.pending:
            forget_files(table, planned.replaced | taken_back)
            self._write_manifests(planned)
        self.ledger, self.status = ledger, "pending" if ledger.pending else "done"

    def _pass(self, planned: Planned) -> set[str]:
        bound: set[str] = set()
        for unit in pending_units(self.table, planned.units):
            self.tried[unit] = self.source == "tar"
            try:
                self.task(unit, set())
            except RejectsSettled:
                bound.add(unit.name)
            except (OSError, TransientError):
                pass  # it stays pending
        return bound

    def _count(self, planned: Planned) -> dict[str, Counts]:
        committed = committed_names(self.table)
        return count_units(self.table, [unit for unit in [*planned.units, *planned.others] if unit.name in committed])

    def _write_manifests(self, planned: Planned) -> None:
        committed = committed_names(self.table)
        for units in planned.plan_units.values():
            if any(unit.name not in committed for unit in units) or is_complete(self.table, units):
                continue
            changes = partial(planned_changes, self.table, planned)
            write_manifest(self.table, INFO, units, {"run": self.name}, self.digests, changes)
