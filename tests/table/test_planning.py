"""Planning: each image is promised once, whatever is listed in which order, and the latest promise counts."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, TableError, TransientError
from pipeline.refs import REF_SCHEMA, extra_schema
from pipeline.stages.commit import to_schema
from pipeline.storage import LocalStore
from pipeline.table import (
    Listing,
    Planned,
    Table,
    Unit,
    commit_unit,
    data_schema,
    list_plans,
    load_promises,
    plan_source,
    planned_changes,
    take_back,
    unit_refs,
)
from pipeline.table import plan as plan_module
from tests.table.test_commit import rejects, rows, stored

PROMISE = "contract"


def refs(*names: str, version: str = "1", label: str | None = "label", **extras: pa.Array) -> pa.Table:
    values = [{"uri": n, "version": version, "num_images": 1, "label": label, "split": None} for n in names]
    table = pa.Table.from_pylist(values, schema=REF_SCHEMA)
    for name, column in extras.items():
        table = table.append_column(name, column)
    return table


def plan(
    table: Table,
    listed: pa.Table | Sequence[pa.Table],
    unit_size: int = 2,
    *,
    source: str = "folder x",
    containers: bool = False,
    limit: int | None = None,
    prune: bool = False,
) -> Planned:
    tables = [listed] if isinstance(listed, pa.Table) else list(listed)
    columns = extra_schema(tables[0].schema)
    listing = Listing(source, containers, lambda _: iter(tables), columns, PROMISE, unit_size, limit)
    return plan_source(table, listing, prune)


def uris(table: Table, unit: Unit) -> list[str]:
    found: list[str] = unit_refs(table, unit)["uri"].to_pylist()
    return found


def commit(table: Table, unit: Unit, *rejected: str) -> None:
    """Commit a unit as the stages do."""
    promised = unit_refs(table, unit)
    replaces: dict[str, Any] = {}
    for uri, name in zip(promised["uri"].to_pylist(), promised["replaces"].to_pylist(), strict=True):
        if name is not None:
            replaces.setdefault(name, []).append(uri)
    good = [uri for uri in promised["uri"].to_pylist() if uri not in rejected]
    commit_unit(table, unit, rows(*good), rejects(*rejected), {}, {k: pa.array(v) for k, v in replaces.items()})


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path))


def test_plan_source__cuts_units_in_the_listing_s_order(table: Table) -> None:
    planned = plan(table, [refs(*"abc"), refs(*"de")])
    assert [(unit.number, unit.num_images) for unit in planned.units] == [(0, 2), (1, 2), (2, 1)]
    assert [uris(table, unit) for unit in planned.units] == [["a", "b"], ["c", "d"], ["e"]]
    assert (planned.num_listed, planned.new, planned.changed, planned.removed) == (5, 5, 0, 0)
    assert pq.read_metadata(table.plan_uri(0)).num_row_groups == 3


def test_plan_source__finds_its_own_plan_again_whatever_the_unit_size(table: Table) -> None:
    first = plan(table, refs(*"abc"))
    again = plan(table, refs(*"cba"), 1)
    assert (again.units, again.new) == (first.units, 0)
    assert len(list_plans(table)) == 1


def test_plan_source__new_images_make_a_plan_of_their_own(table: Table) -> None:
    first = plan(table, refs(*"ac"))
    both = plan(table, refs(*"abc"))
    (new,) = set(both.units) - set(first.units)
    assert uris(table, new) == ["b"]
    assert [entry.sequence for entry in list_plans(table)] == [0, 1]


def test_plan_source__names_depend_on_promise_source_and_refs(tmp_path: Path) -> None:
    names = set()
    cases = [
        (PROMISE, "s", refs(*"ab")),
        ("other", "s", refs(*"ab")),
        (PROMISE, "t", refs(*"ab")),
        (PROMISE, "s", refs(*"ab", version="2")),
        (PROMISE, "s", refs("a")),
    ]
    for i, (promise, source, listed) in enumerate(cases):
        listing = Listing(source, False, lambda _, t=listed: iter([t]), pa.schema([]), promise, 2)
        names.add(plan_source(Table(str(tmp_path / str(i))), listing).units[0].plan)
    assert len(names) == 5
    assert all(name.startswith("000000-") for name in names)


def test_plan_source__a_long_listing_becomes_several_plans(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.table.planner.UNITS_PER_PLAN", 2)
    planned = plan(table, [refs(*"abc"), refs(*"defg"), refs(*"hi")])
    assert [entry.num_units for entry in list_plans(table)] == [2, 2, 1]
    assert [uris(table, unit) for unit in planned.units] == [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"], ["i"]]


def test_plan_source__the_first_units_of_a_run_are_smaller(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.table.planner.UNITS_PER_PLAN", 3)
    names = [f"{i:04d}" for i in range(3000)]
    planned = plan(table, refs(*names), 512)
    assert [unit.num_images for unit in planned.units] == [64, 128, 256, 512, 512, 64, 512, 512, 440]
    assert [entry.num_units for entry in list_plans(table)] == [6, 3]
    assert [name for unit in planned.units for name in uris(table, unit)] == names
    assert plan(table, refs(*names), 512).units == planned.units
    more = plan(table, refs(*names, *(f"x{i}" for i in range(200))), 512)
    assert [unit.num_images for unit in more.units[9:]] == [64, 128, 8]


@pytest.mark.parametrize(
    ("num_rows", "unit_size", "growing", "expected"),
    [
        (5000, 1024, True, [64, 128, 256, 512, 1024, 1024, 1024, 968]),
        (1000, 1024, False, [1000]),
        (300, 200, True, [64, 128, 108]),
        (10, 4, True, [4, 4, 2]),
        (0, 4, True, []),
    ],
)
def test_unit_lengths(num_rows: int, unit_size: int, growing: bool, expected: list[int]) -> None:
    assert plan_module.unit_lengths(num_rows, unit_size, growing) == expected


def test_plan_source__an_image_that_is_listed_twice_counts_once(table: Table) -> None:
    planned = plan(table, [refs(*"aba"), refs(*"ca")], 10)
    assert [uris(table, unit) for unit in planned.units] == [["a", "b", "c"]]
    assert (planned.num_listed, planned.new, planned.repeated) == (5, 3, 2)
    assert plan(table, [refs(*"aba"), refs(*"ca")], 10).repeated == 2


@pytest.mark.parametrize("change", [{"version": "2"}, {"label": "another"}, {"label": None}])
def test_plan_source__a_changed_image_is_replaced(table: Table, change: dict[str, str | None]) -> None:
    first = plan(table, refs(*"abcd"))
    for unit in first.units:
        commit(table, unit)
    listed = [refs("a"), refs("b", **change), refs("c"), refs("d", **change)]  # type: ignore[arg-type]
    again = plan(table, listed)
    assert (again.new, again.changed, again.removed) == (0, 2, 0)
    assert [unit.num_images for unit in again.units] == [1, 1, 2]
    assert again.replaced == {unit.name for unit in first.units}
    assert unit_refs(table, again.units[-1])["replaces"].to_pylist() == [unit.name for unit in first.units]
    assert plan(table, listed).changed == 0
    commit(table, again.units[-1])
    assert stored(table, "data") == list("abcd")
    done = plan(table, listed)
    assert (done.changed, done.replaced) == (0, set())


def test_plan_source__an_unknown_version_is_no_change(table: Table) -> None:
    for unit in plan(table, refs(*"ab")).units:
        commit(table, unit)
    assert plan(table, refs(*"ab", version="")).changed == 0
    assert plan(table, refs(*"ab", version="1")).changed == 0


def test_plan_source__what_changes_while_it_is_pending_is_read_as_it_is_then(table: Table) -> None:
    first = plan(table, refs(*"abc"))
    again = plan(table, refs(*"abc", version="2"))
    assert (again.units, again.changed) == (first.units, 0)
    for unit in first.units:
        commit(table, unit)
    assert plan(table, refs(*"abc", version="2")).changed == 3


def test_plan_source__a_reject_that_changed_gets_its_row(table: Table) -> None:
    (unit,) = plan(table, refs(*"ab")).units
    commit(table, unit, "b")
    again = plan(table, [refs("a"), refs("b", version="2")])
    commit(table, again.units[-1])
    assert (stored(table, "data"), stored(table, "rejects")) == (["a", "b"], [])


def test_plan_source__removed_images_are_reported_and_stay(table: Table) -> None:
    for unit in plan(table, refs(*"abcd")).units:
        commit(table, unit)
    plan(table, refs(*"xy"), source="folder y")
    planned = plan(table, refs(*"ad"))
    assert (planned.removed, planned.pruned) == (2, 0)
    assert plan(table, refs(*"a"), limit=1).removed == 0
    assert stored(table, "data") == list("abcd")


def test_plan_source__prune_takes_removed_images_back_and_they_can_return(table: Table) -> None:
    for unit in plan(table, refs(*"abcd")).units:
        commit(table, unit, *({"d"} & set(uris(table, unit))))
    planned = plan(table, refs(*"ac"), prune=True)
    assert (planned.removed, planned.pruned) == (2, 2)
    assert [unit.num_images for unit in planned.units] == [1, 1]
    noted: list[set[str]] = []
    done = take_back(table, planned.plans, noted.append)
    assert done == noted[0] == {unit.name for unit in planned.units}
    assert (stored(table, "data"), stored(table, "rejects")) == (["a", "c"], [])
    assert take_back(table, planned.plans, noted.append) == set()
    assert plan(table, refs(*"ac"), prune=True).removed == 0
    back = plan(table, refs(*"abcd"))
    assert (back.new, back.changed) == (2, 0)
    commit(table, back.units[-1])
    assert stored(table, "data") == list("abcd")


def test_plan_source__an_image_that_returns_before_its_row_was_taken_out_is_there_once(table: Table) -> None:
    """A crash between the plan that takes images back and the taking out."""
    (unit,) = plan(table, refs(*"ab")).units
    commit(table, unit)
    plan(table, refs(*"a"), prune=True)
    back = plan(table, refs(*"ab", version="2"))
    commit(table, back.units[-1])
    assert stored(table, "data") == ["a", "b"]
    take_back(table, back.plans, lambda _: None)
    assert stored(table, "data") == ["a", "b"]


def containers(*names: str, version: str = "1", num_images: int | None = None) -> pa.Table:
    values = [{"uri": n, "version": version, "num_images": num_images, "label": None, "split": None} for n in names]
    return pa.Table.from_pylist(values, schema=REF_SCHEMA)


def test_plan_source__a_container_is_a_unit(table: Table) -> None:
    planned = plan(table, containers(*"xyz"), 100, containers=True)
    assert [(unit.number, unit.num_images) for unit in planned.units] == [(0, None), (1, None), (2, None)]
    assert [uris(table, unit) for unit in planned.units] == [["x"], ["y"], ["z"]]


def test_plan_source__a_changed_container_replaces_all_of_its_unit(table: Table) -> None:
    first = plan(table, containers(*"xy", num_images=3), containers=True)
    commit_unit(table, first.units[0], rows("x#1", "x#2", "x#3"), rejects(), {})
    again = plan(table, [containers("x", version="2", num_images=5), containers("y", num_images=3)], containers=True)
    assert [unit.num_images for unit in again.units] == [3, 5]
    assert unit_refs(table, again.units[-1])["replaces"].to_pylist() == [first.units[0].name]
    assert again.plan_units[first.units[0].plan][0].num_images == 0


def test_plan_source__containers_keep_the_first_run_s_unit_size(table: Table) -> None:
    sizes: list[int] = []

    def cut(unit_size: int) -> Iterator[pa.Table]:
        sizes.append(unit_size)
        yield containers("x")

    for unit_size in (4, 8):
        plan_source(table, Listing("parquet", True, cut, pa.schema([]), PROMISE, unit_size))
    assert sizes == [4, 4]


def test_plan_source__extra_columns_are_unified_by_name(table: Table) -> None:
    when = pa.array([datetime.datetime(2026, 1, 2)] * 2, pa.timestamp("ns"))
    first = plan(table, refs(*"ab", price=pa.array([1, None], pa.int64()), when=when))
    assert unit_refs(table, first.units[0])["price"].to_pylist() == [1, None]
    second = plan(table, refs(*"cd", tags=pa.array([["x"], []], pa.list_(pa.string()))), source="y")
    assert second.columns.names == ["price", "when", "tags"]
    later = unit_refs(table, second.units[0])
    assert later.schema.field("when").type == pa.timestamp("ns")
    assert later["price"].to_pylist() == [None, None]
    assert plan(table, refs(*"ab", price=pa.array([1, None], pa.int64()), when=when)).changed == 0


def test_plan_source__a_column_of_another_type_is_refused_before_any_work(table: Table) -> None:
    plan(table, refs("a", price=pa.array([1], pa.int64())))
    with pytest.raises(ConfigError, match=r"'price' is int64 in the table .* but string in the source \(folder y\)"):
        plan(table, refs("b", price=pa.array(["1"])), source="folder y")
    assert len(list_plans(table)) == 1


def test_plan_source__two_runs_at_once_plan_each_image_once(table: Table) -> None:
    """Another run plans other images of the same folder after this one has read the plans, and before it writes."""

    def listing() -> Iterator[pa.Table]:
        yield refs(*"abc")
        plan(table, refs(*"bcd"))
        yield refs(*"de")

    planned = plan_source(table, Listing("folder x", False, lambda _: listing(), pa.schema([]), PROMISE, 2))
    held = [uri for unit in planned.units for uri in uris(table, unit)]
    assert sorted(held) == list("abcde")
    assert sorted(uri for entry in list_plans(table) for uri in all_uris(table, entry.sequence)) == list("abcde")


def all_uris(table: Table, sequence: int) -> list[str]:
    found: list[str] = pq.read_table(table.plan_uri(sequence))["uri"].to_pylist()
    return found


def test_plan_source__a_source_that_shows_nothing_takes_nothing_back(table: Table) -> None:
    for unit in plan(table, refs(*"ab")).units:
        commit(table, unit)
    planned = plan(table, refs("a").slice(0, 0), prune=True)
    assert (planned.removed, planned.pruned, len(list_plans(table))) == (0, 0, 1)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None], pa.timestamp("s")),
        pa.array([1, None], pa.timestamp("ns", "Europe/Rome")),
        pa.array([1, None], pa.time32("s")),
        pa.array([86_400_000, None], pa.date64()),
        pa.array([[1], None], pa.list_(pa.timestamp("s"))),
        pa.array([{"at": 1}, None], pa.struct({"at": pa.timestamp("s")})),
        pa.array([b"\xff", None]),
        pa.array([b"\xff", None], pa.large_binary()),
        pa.array([b"\xff", None], pa.binary(1)),
        pa.array([1.5, None], pa.float16()),
        pa.array([1, None], pa.duration("s")),
        pa.array([1, None], pa.decimal128(5, 2)),
        pa.array([True, None]),
    ],
    ids=lambda column: str(column.type),
)
def test_plan_source__any_type_comes_back_as_it_was_promised(table: Table, column: pa.Array) -> None:
    (unit,) = plan(table, refs("a", "b", extra=column)).units
    commit(table, unit)
    assert plan(table, refs("a", "b", extra=column)).changed == 0
    promised = unit_refs(table, unit)
    (stored_plan,) = list_plans(table)
    assert promised.schema.field("extra").type == stored_plan.columns.field("extra").type
    found = to_schema(
        rows("a", "b").append_column("extra", column),
        stored_plan.name,
        data_schema("float32", 2),
        {stored_plan.name: stored_plan.columns},
    )
    assert found["extra"].to_pylist() == promised["extra"].to_pylist()


def test_plan_source__containers_of_a_table_are_cut_by_one_size(table: Table) -> None:
    sizes: list[int] = []

    def cut(unit_size: int) -> Iterator[pa.Table]:
        sizes.append(unit_size)
        yield containers(f"f#rows={unit_size}+")

    for source, unit_size in (("parquet /d/f.parquet", 2), ("parquet /d", 4)):
        plan_source(table, Listing(source, True, cut, pa.schema([]), PROMISE, unit_size))
    assert sizes == [2, 2]


def test_plan_source__an_image_and_a_container_of_one_uri_are_two_things(table: Table) -> None:
    (unit,) = plan(table, refs("a", "x")).units
    commit(table, unit)
    planned = plan(table, containers("x", version="2"), source="webdataset x", containers=True)
    assert (planned.new, planned.changed, planned.replaced) == (1, 0, set())
    assert plan(table, refs("a", "x")).changed == 0


def test_plan_source__a_pending_unit_is_done_from_its_own_source(table: Table) -> None:
    mine = plan(table, refs(*"ab"), source="manifest m").units
    planned = plan(table, refs(*"abc"), 10, source="folder x")
    assert planned.others == mine
    assert [uris(table, unit) for unit in planned.units] == [["c"]]
    for unit in mine:
        commit(table, unit)
    planned = plan(table, refs(*"abc"), 10, source="folder x")
    assert (planned.others, len(planned.units)) == ([], 2)


def test_plan_source__a_pending_unit_whose_images_are_gone_is_still_to_be_done(table: Table) -> None:
    first = plan(table, refs(*"abc"), 1)
    commit(table, first.units[0])
    planned = plan(table, refs(*"ac"), 1)
    assert planned.units == first.units
    assert plan(table, refs(*"ac"), 1, limit=2).units == [first.units[0], first.units[2]]


def test_plan_source__a_plan_whose_answer_was_lost_is_this_run_s(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    put = LocalStore.put_if_absent

    def lose_the_answer(store: LocalStore, uri: str, data: bytes) -> bool:
        put(store, uri, data)
        return False

    monkeypatch.setattr(LocalStore, "put_if_absent", lose_the_answer)
    assert plan(table, refs(*"abc")).new == 3
    assert len(list_plans(table)) == 1


def test_planned_changes__units_that_pending_ones_replace_by_the_plans_as_they_are_now(table: Table) -> None:
    planned = plan(table, refs(*"abcd"))
    for unit in planned.units:
        commit(table, unit)
    assert planned_changes(table, planned) == set()
    later = plan(table, [refs("a", version="2"), refs(*"bcd")])
    assert planned_changes(table, planned) == {planned.units[0].name}
    commit(table, later.units[-1])
    assert planned_changes(table, planned) == set()


def test_unit_refs__a_changed_plan_is_found(table: Table) -> None:
    (unit, *_) = plan(table, refs(*"abc")).units
    other = Table(f"{table.uri}/other")
    plan(other, containers(*"xyz"), containers=True)
    moved = pq.read_table(other.plan_uri(0))
    pq.write_table(moved.slice(1), table.plan_uri(0))
    with pytest.raises(TransientError, match="The plan was changed"):
        unit_refs(table, unit)


def test_list_plans__a_damaged_plan_is_an_error(table: Table) -> None:
    plan(table, refs(*"abc"))
    Path(table.plan_uri(0)).write_bytes(b"damaged")
    with pytest.raises(TableError, match=r"000000\.parquet, but it is damaged"):
        load_promises(table)


def test_plan_module__a_footer_of_a_full_plan_stays_small(table: Table) -> None:
    names = [f"s3://bucket/photos/{i:09d}.jpg" for i in range(plan_module.UNITS_PER_PLAN)]
    plan(table, refs(*names), 1)
    with open(table.plan_uri(0), "rb") as file:
        file.seek(-8, 2)
        assert int.from_bytes(file.read(4), "little") < 500_000


@settings(max_examples=60, deadline=None)
@given(
    runs=st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("12"), min_size=1),
            st.integers(1, 4),
            st.booleans(),
            st.booleans(),
        ),
        max_size=5,
    )
)
def test_plan_source__the_table_is_what_was_listed(
    runs: list[tuple[dict[str, str], int, bool, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Runs on a changing source, some of which stop before their work: in the end each image has one row."""
    table = Table(str(tmp_path_factory.mktemp("table")))
    ever: set[str] = set()
    for versions, unit_size, works, prune in [*runs, ({"z": "1"}, 1, True, False)]:
        planned = plan(table, [refs(name, version=v) for name, v in versions.items()], unit_size, prune=prune)
        take_back(table, planned.plans, lambda _: None)
        held = list(itertools.chain.from_iterable(uris(table, unit) for unit in planned.units))
        assert set(versions) <= set(held)
        assert sum(unit.num_images or 0 for unit in planned.units) <= len(held)
        if works:
            for unit in planned.units:
                if not Path(table.data_uri(unit.name)).exists():
                    commit(table, unit)
            found = stored(table, "data")
            assert len(found) == len(set(found))
            assert set(versions) <= set(found)
            ever = set(found)
    assert "z" in ever
