"""Closing: whoever is still at work on a unit whose images went to another one comes too late, whenever that is."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.stages.commit import to_schema
from pipeline.table import Planned, Table, Unit, commit_unit, data_schema, replan, unit_refs
from pipeline.table.close import replaced_rows
from tests.memory_store import Fate, MemoryStore, Writer
from tests.table.test_commit import rejects, rows
from tests.table.test_planning import PROMISE, containers, plan, refs


def content(table: Table, folder: str, unit: Unit) -> pa.Table | None:
    """Return what a unit's data or rejects file holds."""
    data = table.store.files.get(f"t/{folder}/{unit.name}.parquet")  # type: ignore[attr-defined]
    return None if data is None else pq.read_table(io.BytesIO(data))


def held(table: Table, unit: Unit) -> tuple[list[str] | None, list[str] | None]:
    """Return the URIs of a unit's rows and of its rejects; None for a file that isn't there."""
    found = (content(table, folder, unit) for folder in ("data", "rejects"))
    rows, rejected = (None if file is None else file["uri"].to_pylist() for file in found)
    return rows, rejected


def commit(table: Table, unit: Unit, *rejected: str, members: int | None = None) -> None:
    """Commit a unit as the stages do; a container where it has members."""
    promised = unit_refs(table, unit)
    uris = promised["uri"].to_pylist()
    if members is not None:
        uris = [f"{uris[0]}#{number}" for number in range(members)]
    good = [uri for uri in uris if uri not in rejected]
    replaces = replaced_rows(promised, members is not None)
    commit_unit(table, Unit(unit.plan, unit.number, None), rows(*good), rejects(*rejected), {"run": "r"}, replaces)


def promise_again(table: Table, planned: Planned, unit: Unit) -> tuple[Planned, Unit]:
    """Promise a unit's images again, and return what there is to do and the new unit."""
    again = replan(table, PROMISE, planned, {unit.name})
    (new,) = (unit for unit in again.units if unit.plan == again.plans[-1].name)
    return again, new


def writer_before(store: MemoryStore, table: Table, unit: Unit, folder: str, *rejected: str) -> Writer:
    """Return a writer that is about to write a unit's file."""
    writer = Writer(store, "late", lambda: commit(table, unit, *rejected))
    while writer.next is not None and not (writer.next.writes and f"/{folder}/{unit.name}" in writer.next.uri):
        writer.step()
    return writer


def finish(writer: Writer) -> None:
    while writer.next is not None:
        writer.step()
    assert writer.error is None


def test_supersede__closes_a_unit_that_was_never_committed(table: Table) -> None:
    planned = plan(table, refs(*"abc"))
    old, other = planned.units
    _, new = promise_again(table, planned, old)
    commit(table, new, "b")
    assert held(table, new) == (["a"], ["b"])
    assert held(table, old) == ([], [])
    assert held(table, other) == (None, None)
    closed = content(table, "data", old)
    assert closed is not None
    told = json.loads(closed.schema.metadata[b"vep"])
    assert told == {"plan": old.plan, "unit": old.number, "run": "r", "closed_by": new.name}


@pytest.mark.parametrize("folder", ["rejects", "data"])
@pytest.mark.parametrize("rejected", ["", "a"])
def test_supersede__a_late_writer_finds_the_unit_closed(
    store: MemoryStore, table: Table, folder: str, rejected: str
) -> None:
    planned = plan(table, refs(*"ab"))
    (old,) = planned.units
    late = writer_before(store, table, old, folder, *rejected)
    _, new = promise_again(table, planned, old)
    commit(table, new, "b")
    before = dict(store.files)
    finish(late)
    assert store.files == before
    assert held(table, old) == ([], [])
    assert held(table, new) == (["a"], ["b"])


@pytest.mark.parametrize("rejected", ["", "b"])
def test_supersede__rows_of_a_writer_that_came_just_before_the_closing_leave(
    store: MemoryStore, table: Table, rejected: str
) -> None:
    planned = plan(table, refs(*"ab"))
    (old,) = planned.units
    late = writer_before(store, table, old, "data", *rejected)
    _, new = promise_again(table, planned, old)
    closing = Writer(store, "closing", lambda: commit(table, new))
    while closing.next is not None and not (closing.next.writes and f"/data/{old.name}" in closing.next.uri):
        closing.step()
    finish(late)
    assert held(table, old)[0] == sorted({"a", "b"} - {rejected})
    finish(closing)
    assert held(table, old) == ([], [])
    assert held(table, new) == (["a", "b"], [])


def test_supersede__what_the_closed_unit_was_to_replace_leaves_too(table: Table) -> None:
    for unit in plan(table, refs(*"ab")).units:
        commit(table, unit)
    planned = plan(table, [refs("a", version="2"), refs("b")])
    first, second = planned.units
    again, third = promise_again(table, planned, second)
    _, fourth = promise_again(table, again, third)
    commit(table, fourth)
    assert [held(table, unit) for unit in (first, second, third, fourth)] == [
        (["b"], []),
        ([], []),
        ([], []),
        (["a"], []),
    ]


def test_supersede__a_closed_file_has_the_columns_of_its_own_plan(table: Table) -> None:
    schema = data_schema("float32", 2)
    planned = plan(table, refs(*"ab", camera=pa.array(["x", "y"])))
    (old,) = planned.units
    plan(table, refs("c", lens=pa.array([1])), source="folder y")
    again, new = promise_again(table, planned, old)
    columns = {entry.name: entry.columns for entry in again.plans}
    assert columns[new.plan].names == ["camera", "lens"]
    found = rows("a", "b").append_column("camera", pa.array(["x", "y"]))
    commit_unit(
        table,
        new,
        to_schema(found, new.plan, schema, columns),
        rejects(),
        {},
        replaced_rows(unit_refs(table, new), containers=False),
    )
    files = [content(table, "data", unit) for unit in (old, new)]
    assert [file.column_names for file in files if file is not None] == [
        [*schema.names, "camera"],
        [*schema.names, "camera", "lens"],
    ]
    assert files[0] is not None
    assert files[0].schema.equals(to_schema(found.slice(0, 0), old.plan, schema, columns).schema)


def test_supersede__a_container_is_closed_whole(store: MemoryStore, table: Table) -> None:
    planned = plan(table, containers("x"), containers=True)
    (old,) = planned.units
    late = Writer(store, "late", lambda: commit(table, old, "x#0", members=3))
    while late.next is not None and not (late.next.writes and "/data/" in late.next.uri):
        late.step()
    _, new = promise_again(table, planned, old)
    commit(table, new, members=2)
    finish(late)
    assert held(table, old) == ([], [])
    assert held(table, new) == (["x#0", "x#1"], [])


@pytest.mark.parametrize("fate", [Fate.CRASHES_BEFORE, Fate.CRASHES_AFTER, Fate.LOSES_ITS_ANSWER, Fate.FAILS_UNSEEN])
@pytest.mark.parametrize("number", range(5))
def test_supersede__whatever_happens_on_the_way_another_try_completes_it(
    store: MemoryStore, table: Table, fate: Fate, number: int
) -> None:
    planned = plan(table, refs(*"ab"))
    (old,) = planned.units
    writer_before(store, table, old, "data", "a").crash()
    _, new = promise_again(table, planned, old)
    writer = Writer(store, "first try", lambda: commit(table, new))
    writes = 0
    while writer.next is not None:
        is_it = writer.next.writes and writes == number
        writes += writer.next.writes
        writer.step(fate if is_it else Fate.HAPPENS)
    assert writes > number
    commit(table, new)
    assert held(table, old) == ([], [])
    assert held(table, new) == (["a", "b"], [])


def test_replaced_rows__by_unit_and_all_of_a_container() -> None:
    values: list[dict[str, Any]] = [
        {"uri": "a", "replaces": None},
        {"uri": "b", "replaces": "u"},
        {"uri": "c", "replaces": "v"},
        {"uri": "d", "replaces": "u"},
    ]
    promised = pa.Table.from_pylist(values, schema=pa.schema([("uri", pa.string()), ("replaces", pa.string())]))
    images = replaced_rows(promised, containers=False)
    assert {name: None if uris is None else uris.to_pylist() for name, uris in images.items()} == {
        "u": ["b", "d"],
        "v": ["c"],
    }
    assert replaced_rows(promised, containers=True) == {"u": None, "v": None}
