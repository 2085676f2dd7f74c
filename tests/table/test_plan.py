"""Plans: the same images find the same plan, new images make a new one, no image is in two."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import TransientError
from pipeline.refs import ImageRef, refs_table
from pipeline.table import Table, Unit, plan_missing, planned_refs, unit_refs

PROMISE = "contract"


def refs(*names: str, version: str = "1") -> list[ImageRef]:
    return [ImageRef(name, version, "label", None) for name in names]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path))


def test_plan_missing__cuts_units_in_uri_order(table: Table) -> None:
    units, changed = plan_missing(table, PROMISE, refs_table(refs(*"edcba")), 2)
    assert [(unit.number, unit.num_images) for unit in units] == [(0, 2), (1, 2), (2, 1)]
    assert [unit_refs(table, unit)["uri"].to_pylist() for unit in units] == [["a", "b"], ["c", "d"], ["e"]]
    assert changed == 0


def test_plan_missing__a_unit_is_a_row_group(table: Table) -> None:
    (unit, *_), _ = plan_missing(table, PROMISE, refs_table(refs(*"abcde")), 2)
    assert pq.read_metadata(table.plan_uri(unit.plan)).num_row_groups == 3


def test_plan_missing__finds_its_own_plan_again_whatever_the_unit_size(table: Table) -> None:
    first, _ = plan_missing(table, PROMISE, refs_table(refs(*"abc")), 2)
    again, _ = plan_missing(table, PROMISE, refs_table(refs(*"cba")), 1)
    assert again == first


def test_plan_missing__new_images_make_a_plan_of_their_own(table: Table) -> None:
    first, _ = plan_missing(table, PROMISE, refs_table(refs(*"ac")), 2)
    both, _ = plan_missing(table, PROMISE, refs_table(refs(*"abc")), 2)
    assert set(first) < set(both)
    (new,) = set(both) - set(first)
    assert unit_refs(table, new)["uri"].to_pylist() == ["b"]


def test_plan_missing__names_depend_on_promise_and_refs(table: Table, tmp_path: Path) -> None:
    cases = [(PROMISE, refs(*"ab")), ("other", refs(*"ab")), (PROMISE, refs(*"ab", version="2")), (PROMISE, refs("a"))]
    names = set()
    for i, (promise, images) in enumerate(cases):
        units, _ = plan_missing(Table(str(tmp_path / str(i))), promise, refs_table(images), 2)
        names.add(units[0].plan)
    assert len(names) == 4


def test_plan_missing__counts_images_that_changed_after_their_commit(table: Table) -> None:
    units, _ = plan_missing(table, PROMISE, refs_table(refs(*"abc")), 2)
    images = [*refs("a", version="2"), *refs("b"), *refs("c", version="2")]
    assert plan_missing(table, PROMISE, refs_table(images), 2) == (units, 0)
    Path(table.uri, "data").mkdir()
    Path(table.data_uri(units[0].plan, 0)).touch()
    assert plan_missing(table, PROMISE, refs_table(images), 2) == (units, 1)


def test_plan_missing__leaves_units_of_other_sources_alone(table: Table) -> None:
    plan_missing(table, PROMISE, refs_table(refs(*"ab")), 2)
    units, _ = plan_missing(table, PROMISE, refs_table(refs(*"xy")), 2)
    assert [unit_refs(table, unit)["uri"].to_pylist() for unit in units] == [["x", "y"]]


def test_unit_refs__a_changed_plan_is_found(table: Table) -> None:
    (unit, *_), _ = plan_missing(table, PROMISE, refs_table(refs(*"abc")), 2)
    with pytest.raises(TransientError, match="The plan was changed"):
        unit_refs(table, Unit(unit.plan, 0, 3))


@settings(max_examples=40, deadline=None)
@given(runs=st.lists(st.tuples(st.sets(st.sampled_from("abcdefgh"), min_size=1), st.integers(1, 4)), max_size=5))
def test_plan_missing__each_image_is_planned_once(
    runs: list[tuple[set[str], int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = Table(str(tmp_path_factory.mktemp("table")))
    for names, unit_size in runs:
        units, _ = plan_missing(table, PROMISE, refs_table(refs(*names)), unit_size)
        held = set(itertools.chain.from_iterable(unit_refs(table, unit)["uri"].to_pylist() for unit in units))
        assert names <= held
    planned = planned_refs(table)["uri"].to_pylist()
    assert sorted(planned) == sorted(set().union(*(names for names, _ in runs))) if runs else planned == []
