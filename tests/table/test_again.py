"""Promising images again: once, whoever does it at the same moment, and only what no later plan has taken over."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from pipeline.errors import RejectsSettled
from pipeline.table import (
    Ledger,
    Planned,
    Table,
    Unit,
    commit_unit,
    committed_names,
    count_codes,
    count_units,
    list_plans,
    make_ledger,
    plan_retry,
    replan,
    unit_refs,
)
from pipeline.table.schema import REJECT_SCHEMA
from tests.memory_store import Fate, MemoryStore, Writer
from tests.table.test_close import commit, finish, held, writer_before
from tests.table.test_commit import rows
from tests.table.test_planning import PROMISE, containers, plan, refs, uris


def ledger(table: Table, planned: Planned) -> Ledger:
    committed = committed_names(table)
    counts = count_units(table, [unit for unit in [*planned.units, *planned.others] if unit.name in committed])
    return make_ledger([*planned.units, *planned.others], counts)


def pending(table: Table, planned: Planned) -> list[Unit]:
    committed = committed_names(table)
    return [unit for unit in planned.units if unit.name not in committed]


def meanwhile(store: MemoryStore, work: Callable[[], object], other: Callable[[], object], folder: str) -> None:
    """Do other work at the moment at which some work is about to write into a folder."""
    writer = Writer(store, "first", work)
    while writer.next is not None and not (writer.next.writes and f"/{folder}/" in writer.next.uri):
        writer.step()
    other()
    finish(writer)


def test_replan__gets_images_out_of_settled_rejects(store: MemoryStore, table: Table) -> None:
    planned = plan(table, refs(*"abc"))
    old, other = planned.units
    writer_before(store, table, old, "data").crash()
    with pytest.raises(RejectsSettled):
        commit(table, old, "b")
    again = replan(table, PROMISE, planned, {old.name})
    assert [uris(table, unit) for unit in again.units] == [["c"], ["a", "b"]]
    assert ledger(table, again) == Ledger(planned=3, embedded=0, rejected=0, pending=3)
    assert again.replaced == {old.name}
    new = again.units[-1]
    assert unit_refs(table, new)["replaces"].to_pylist() == [old.name, old.name]
    commit(table, new, "b")
    commit(table, other)
    assert ledger(table, again) == Ledger(planned=3, embedded=2, rejected=1, pending=0)
    planned = plan(table, refs(*"abc"))
    assert (planned.new, planned.changed, planned.units) == (0, 0, again.units)
    assert (planned.source, planned.num_listed) == (again.source, 3)


def test_replan__two_runs_at_once_promise_once(store: MemoryStore, table: Table) -> None:
    planned = plan(table, refs(*"abc"))
    old = planned.units[0]
    found: list[Planned] = []

    def run() -> None:
        found.append(replan(table, PROMISE, planned, {old.name}))

    meanwhile(store, run, run, "plans")
    assert len(list_plans(table)) == 2
    assert found[0].units == found[1].units
    assert [uris(table, unit) for unit in found[0].units] == [["c"], ["a", "b"]]


def test_replan__two_runs_with_other_units_each_promise_their_own(store: MemoryStore, table: Table) -> None:
    planned = plan(table, refs(*"abcd"))
    found: list[Planned] = []

    def run(number: int) -> None:
        found.append(replan(table, PROMISE, planned, {planned.units[number].name}))

    meanwhile(store, lambda: run(0), lambda: run(1), "plans")
    later, earlier = found[1], found[0]
    assert [uris(table, unit) for unit in earlier.units] == [["a", "b"], ["c", "d"]]
    assert [uris(table, unit) for unit in later.units] == [["c", "d"], ["a", "b"]]
    assert {unit.plan for unit in later.units}.isdisjoint({planned.units[0].plan})


def test_replan__goes_on_with_what_took_the_place_of_what_took_a_unit_s_place(table: Table) -> None:
    """Another run has promised the unit's images again, and then those of the new unit."""
    planned = plan(table, refs(*"ab"))
    (old,) = planned.units
    other = replan(table, PROMISE, planned, {old.name})
    other = replan(table, PROMISE, other, {other.units[0].name})
    again = replan(table, PROMISE, planned, {old.name})
    assert len(list_plans(table)) == 3
    assert again.units == other.units
    assert [uris(table, unit) for unit in again.units] == [["a", "b"]]
    assert ledger(table, again).pending == 2


def test_replan__a_unit_that_was_committed_meanwhile_stays_as_it_is(table: Table) -> None:
    planned = plan(table, refs(*"ab"))
    (old,) = planned.units
    commit(table, old)
    assert replan(table, PROMISE, planned, {old.name}).units == [old]
    assert len(list_plans(table)) == 1


def test_replan__takes_in_what_other_runs_have_planned_in_place_of_this_run_s_units(table: Table) -> None:
    planned = plan(table, refs(*"abc"))
    for unit in planned.units:
        commit(table, unit)
    assert replan(table, PROMISE, planned, ()) is planned
    changed = plan(table, [refs("a", version="2"), refs(*"bc")])
    plan(table, refs("d"))
    foreign = plan(table, refs("b", version="2"), source="folder y").units[-1]
    again = replan(table, PROMISE, planned, ())
    assert [unit.num_images for unit in again.units] == [0, 1, 1]
    assert again.units[-1] == changed.units[-1]
    assert again.others == [foreign]
    assert again.replaced == {planned.units[0].name}
    assert ledger(table, again).pending == 2


def test_replan__follows_also_what_another_source_has_promised_of_this_run_s_images(table: Table) -> None:
    """Found by `tests.table.machine`: an image was in no ledger, once it had been promised anew for the second time."""
    theirs = plan(table, refs(*"abc"), source="folder y")
    planned = plan(table, refs(*"bcd"))
    assert (planned.new, planned.others) == (1, theirs.units)
    commit(table, theirs.units[1])
    changed = plan(table, [refs(*"ab"), refs("c", version="2")], source="folder y").units[-1]
    again = replan(table, PROMISE, planned, ())
    assert [uris(table, unit) for unit in again.others] == [["a", "b"], ["c"]]
    assert again.others[-1] == changed
    commit(table, planned.units[0])
    assert ledger(table, again) == Ledger(planned=4, embedded=1, rejected=0, pending=3)
    commit(table, theirs.units[0])
    commit(table, changed)
    assert ledger(table, again) == Ledger(planned=4, embedded=4, rejected=0, pending=0)


def test_replan__a_container_is_promised_again_whole(table: Table) -> None:
    planned = plan(table, containers(*"xy"), containers=True)
    old, other = planned.units
    again = replan(table, PROMISE, planned, {old.name})
    assert [uris(table, unit) for unit in again.units] == [["y"], ["x"]]
    new = again.units[-1]
    assert new.num_images is None
    commit(table, new, members=2)
    commit(table, other, members=1)
    assert (held(table, old), held(table, new)) == (([], []), (["x#0", "x#1"], []))
    assert ledger(table, again) == Ledger(planned=3, embedded=3, rejected=0, pending=0)


@pytest.mark.parametrize("fate", list(Fate))
def test_replan__whatever_happens_to_its_plan_the_next_try_promises_once(
    store: MemoryStore, table: Table, fate: Fate
) -> None:
    planned = plan(table, refs(*"ab"))
    name = planned.units[0].name
    writer = Writer(store, "first try", lambda: replan(table, PROMISE, planned, {name}))
    while writer.next is not None:
        writer.step(fate if writer.next.writes else Fate.HAPPENS)
        if fate is Fate.LOSES_ITS_ANSWER:
            fate = Fate.HAPPENS
    again = replan(table, PROMISE, planned, {name})
    assert len(list_plans(table)) == 2
    assert [uris(table, unit) for unit in again.units] == [["a", "b"]]


def reject(uri: str, code: str) -> pa.Table:
    return pa.Table.from_pylist([{"uri": uri, "stage": "read", "code": code, "message": ""}], schema=REJECT_SCHEMA)


def test_plan_retry__takes_up_rejects_by_their_codes(table: Table) -> None:
    first, second = plan(table, refs(*"abcd")).units
    commit_unit(table, first, rows("a"), reject("b", "missing"), {})
    commit_unit(table, second, rows("c"), reject("d", "too_large"), {})
    (source, planned), *others = plan_retry(table, PROMISE, ["too_large"]).items()
    assert (source, others) == ("folder x", [])
    assert (planned.source, planned.again) == (source, 1)
    (new,) = pending(table, planned)
    assert uris(table, new) == ["d"]
    assert unit_refs(table, new)["replaces"].to_pylist() == [second.name]
    assert planned.replaced == {second.name}
    assert (ledger(table, planned).planned, ledger(table, planned).pending) == (4, 1)
    commit(table, new)
    assert held(table, second) == (["c"], [])
    assert ledger(table, planned) == Ledger(planned=4, embedded=3, rejected=1, pending=0)
    assert count_codes(table, committed_names(table)) == {"missing": 1}


def test_plan_retry__a_second_one_while_the_first_is_pending_plans_nothing(table: Table) -> None:
    (unit,) = plan(table, refs(*"ab")).units
    commit(table, unit, "b")
    first = plan_retry(table, PROMISE, ())["folder x"]
    second = plan_retry(table, PROMISE, ())["folder x"]
    assert len(list_plans(table)) == 2
    assert (first.again, second.again) == (1, 0)
    assert first.units == second.units
    commit(table, pending(table, first)[0], "b")
    third = plan_retry(table, PROMISE, ())["folder x"]
    assert (third.again, len(list_plans(table))) == (1, 3)
    commit(table, pending(table, third)[0])
    assert plan_retry(table, PROMISE, ()) == {}


def test_plan_retry__two_at_once_promise_once(store: MemoryStore, table: Table) -> None:
    (unit,) = plan(table, refs(*"ab")).units
    commit(table, unit, "b")
    found: list[dict[str, Planned]] = []

    def run() -> None:
        found.append(plan_retry(table, PROMISE, ()))

    meanwhile(store, run, run, "plans")
    assert len(list_plans(table)) == 2
    assert found[0]["folder x"].units == found[1]["folder x"].units


def test_plan_retry__rejects_of_many_units_share_units_and_plans_stay_within_bounds(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    for unit in plan(table, refs(*"abcdefghij")).units:
        commit(table, unit, uris(table, unit)[1])
    monkeypatch.setattr("pipeline.table.again.UNITS_PER_PLAN", 2)
    planned = plan_retry(table, PROMISE, ())["folder x"]
    assert [entry.num_units for entry in list_plans(table)] == [5, 2, 1]
    assert [uris(table, unit) for unit in pending(table, planned)] == [["b", "d"], ["f", "h"], ["j"]]
    assert (planned.again, len(planned.replaced)) == (5, 5)


def test_plan_retry__a_reject_of_a_container_makes_all_of_it_pending(table: Table) -> None:
    first, second = plan(table, containers(*"xy"), containers=True).units
    commit(table, first, "x#1", members=2)
    commit(table, second, members=2)
    planned = plan_retry(table, PROMISE, ())["folder x"]
    (new,) = pending(table, planned)
    assert (uris(table, new), planned.again) == (["x"], 1)
    assert ledger(table, planned) == Ledger(planned=3, embedded=2, rejected=0, pending=1)
    commit(table, new, members=3)
    assert held(table, first) == ([], [])
    assert ledger(table, planned) == Ledger(planned=5, embedded=5, rejected=0, pending=0)


def test_plan_retry__leaves_what_a_later_plan_has_taken_over(table: Table) -> None:
    (unit,) = plan(table, refs(*"abc"), 3).units
    commit(table, unit, "a", "b", "c")
    plan(table, [refs("a", version="2"), refs(*"bc")], 3)
    planned = plan_retry(table, PROMISE, ())["folder x"]
    assert [uris(table, unit) for unit in pending(table, planned)] == [["a"], ["b", "c"]]
    assert planned.again == 2


def test_plan_retry__each_source_has_its_own_units(table: Table) -> None:
    for source, names in (("folder x", "ab"), ("folder y", "cd")):
        for unit in plan(table, refs(*names), source=source).units:
            commit(table, unit, *names)
    found = plan_retry(table, PROMISE, ())
    assert {source: [uris(table, unit) for unit in pending(table, planned)] for source, planned in found.items()} == {
        "folder x": [["a", "b"]],
        "folder y": [["c", "d"]],
    }
    assert [entry.source for entry in list_plans(table)] == ["folder x", "folder y", "folder x", "folder y"]


def test_plan_retry__keeps_extra_columns_and_how_the_source_is_opened(table: Table) -> None:
    (unit,) = plan(table, refs(*"ab", camera=pa.array(["x", "y"]))).units
    commit(table, unit, "a")
    planned = plan_retry(table, PROMISE, ())["folder x"]
    promised = unit_refs(table, pending(table, planned)[0])
    assert (promised["camera"].to_pylist(), planned.columns.names) == (["x"], ["camera"])
    first, second = list_plans(table)
    assert (second.opened_with, second.unit_size) == (first.opened_with, first.unit_size)
