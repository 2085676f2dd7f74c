"""Tables on stores that don't mind the conditions of a PUT."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pipeline.storage import Conditions, LocalStore, Store
from pipeline.table import Planned, Table, create_table, open_table, probe, take_out_ahead
from tests.table.test_commit import stored
from tests.table.test_manifest import INFO
from tests.table.test_planning import commit, plan, refs


class TwoStepStore(LocalStore):
    """Replaces a file in two steps, as a store without If-Match does; of two writers, both are through the first."""

    meeting = threading.Barrier(2)

    @property
    def conditions(self) -> Conditions:
        return Conditions(replace=False)

    def replace_if(self, uri: str, data: bytes, version: str) -> bool:
        info = self.info(uri)
        try:
            self.meeting.wait(timeout=1)
        except threading.BrokenBarrierError:
            self.meeting.reset()  # nobody else is at it
        if info is None or info.version != version:
            return False
        self.replace(uri, data)
        return True


def pending_after_a_change(table: Table) -> Planned:
    """Commit a unit of four images, change three of them, and plan these in two units."""
    for unit in plan(table, refs(*"abcd"), 4).units:
        commit(table, unit, "d")
    planned = plan(table, [refs("a"), refs("b", "c", "d", version="2")], 2)
    assert planned.changed == 3
    return planned


def test_take_out_ahead__units_committed_at_once_bring_no_old_row_back(tmp_path: Path) -> None:
    table = Table(str(tmp_path), TwoStepStore())
    planned = pending_after_a_change(table)
    pending = [unit for unit in planned.units if unit.plan != planned.plans[0].name]
    take_out_ahead(table, planned.plans, {unit.name for unit in pending})
    assert (stored(table, "data"), stored(table, "rejects")) == (["a"], [])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(partial(commit, table), pending))
    assert stored(table, "data") == list("abcd")


def test_take_out_ahead__only_of_units_that_are_pending_and_only_where_it_is_needed(tmp_path: Path) -> None:
    table = Table(str(tmp_path))
    planned = pending_after_a_change(table)
    first, second = (unit.name for unit in planned.units if unit.plan != planned.plans[0].name)
    take_out_ahead(table, planned.plans, {first, second})
    assert (stored(table, "data"), stored(table, "rejects")) == (list("abc"), ["d"])
    take_out_ahead(replace(table, store=TwoStepStore()), planned.plans, {second})
    assert (stored(table, "data"), stored(table, "rejects")) == (list("abc"), [])
    take_out_ahead(replace(table, store=TwoStepStore()), planned.plans, {first, second})
    assert stored(table, "data") == ["a"]


class ForgetfulStore(LocalStore):
    """Overwrites what is there, and is known to do so once it has been probed."""

    def __init__(self, known: bool = False) -> None:
        object.__setattr__(self, "_known", known)

    @property
    def conditions(self) -> Conditions:
        return Conditions(create=not self._known)  # type: ignore[attr-defined]

    def probed(self, uri: str) -> Store:  # type: ignore[override]
        return ForgetfulStore(known=True)

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        self.replace(uri, data)
        return True


def test_probe__says_once_what_the_store_can_not_promise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = Table(str(tmp_path), ForgetfulStore())
    create_table(table, INFO)
    caplog.set_level(logging.WARNING)
    probed = probe(table)
    assert (probed.uri, probed.store.conditions.create) == (table.uri, False)
    assert "ignores If-None-Match" in caplog.text
    assert "don't run two jobs" in caplog.text
    assert probe(probed).store == probed.store
    assert len(caplog.records) == 1
    assert probe(open_table(str(tmp_path))) == open_table(str(tmp_path))
    assert len(caplog.records) == 1


def test_create_table__never_overwrites_whatever_the_store_does(tmp_path: Path) -> None:
    table = Table(str(tmp_path), ForgetfulStore())
    create_table(table, INFO)
    path = tmp_path / "table.json"
    path.write_text(path.read_text().replace('"created_by": "', '"created_by": "somebody '))
    before = path.read_text()
    create_table(table, INFO)
    assert path.read_text() == before
