"""The commit protocol: whole or not at all, first writer wins, no step back."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.errors import TransientError
from pipeline.table import Table, Unit, commit_unit, take_out
from pipeline.table.commit import Committed
from pipeline.table.schema import REJECT_SCHEMA, data_schema

UNIT = Unit("000000-plan", 3, 4)
NAME = "000000-plan-000003"
ALL = ("a", "b", "c", "d")


def rows(*uris: str) -> pa.Table:
    values = [
        {"uri": uri, "sha256": "0", "label": "x", "split": None, "width": 1, "height": 1, "embedding": [1.0, 2.0]}
        for uri in uris
    ]
    return pa.Table.from_pylist(values, schema=data_schema("float32", 2))


def rejects(*uris: str) -> pa.Table:
    values = [{"uri": uri, "stage": "read", "code": "missing", "message": "gone"} for uri in uris]
    return pa.Table.from_pylist(values, schema=REJECT_SCHEMA)


def stored(table: Table, folder: str) -> list[str]:
    paths = sorted(Path(table.uri, folder).glob("*.parquet"))
    return sorted(itertools.chain.from_iterable(pq.read_table(path)["uri"].to_pylist() for path in paths))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path / "table"))


def test_commit_unit__writes_rows_and_rejects(table: Table) -> None:
    committed = commit_unit(table, UNIT, rows("a", "b", "d"), rejects("c"), {"run": "r1"})
    assert (committed.embedded, committed.rejected, committed.created) == (3, 1, True)
    files = [Path(table.uri, folder, f"{NAME}.parquet").read_bytes() for folder in ("data", "rejects")]
    assert committed.sha256 == tuple(hashlib.sha256(data).hexdigest() for data in files)
    assert stored(table, "data") == ["a", "b", "d"]
    assert stored(table, "rejects") == ["c"]
    metadata = pq.read_schema(table.data_uri(NAME)).metadata
    assert b'"run": "r1"' in metadata[b"vep"]
    assert b'"unit": 3' in metadata[b"vep"]


def test_commit_unit__embeddings_have_no_dictionary_and_labels_have(table: Table) -> None:
    commit_unit(table, UNIT, rows(*ALL), rejects(), {})
    group = pq.read_metadata(table.data_uri(NAME)).row_group(0)
    columns = {group.column(i).path_in_schema.split(".")[0]: group.column(i) for i in range(group.num_columns)}
    assert not columns["embedding"].has_dictionary_page
    assert columns["label"].has_dictionary_page


@pytest.mark.parametrize("uris", [ALL, ()])
def test_commit_unit__all_good_and_all_bad_write_both_files(table: Table, uris: tuple[str, ...]) -> None:
    commit_unit(table, UNIT, rows(*uris), rejects(*(set(ALL) - set(uris))), {})
    assert stored(table, "data") == sorted(uris)
    assert stored(table, "rejects") == sorted(set(ALL) - set(uris))


def test_commit_unit__a_second_writer_changes_nothing(table: Table) -> None:
    commit_unit(table, UNIT, rows("a", "b", "c"), rejects("d"), {"run": "r1"})
    before = {path: path.read_bytes() for path in Path(table.uri).rglob("*.parquet")}
    assert commit_unit(table, UNIT, rows(*ALL), rejects(), {"run": "r2"}) == Committed(3, 1, created=False)
    assert {path: path.read_bytes() for path in Path(table.uri).rglob("*.parquet")} == before


def test_commit_unit__counts_what_this_run_committed_before_its_answer_was_lost(table: Table) -> None:
    for _ in range(2):  # the second time is that of a task that Ray tries again
        committed = commit_unit(table, UNIT, rows("a", "b", "c"), rejects("d"), {"run": "r1"})
        assert (committed.embedded, committed.rejected, committed.created) == (3, 1, True)
    assert not commit_unit(table, UNIT, rows("a", "b", "c"), rejects("d"), {}).created


def test_commit_unit__refuses_a_count_that_does_not_add_up(table: Table) -> None:
    with pytest.raises(AssertionError, match="promises 4 images, got 1"):
        commit_unit(table, UNIT, rows("a"), rejects("b"), {})


class Crash(BaseException):
    """Stands for the end of the process."""


def crash_before(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """End the process at the step-th put."""
    put, count = storage.LocalStore.put_if_absent, itertools.count()

    def crashing(*arguments: Any) -> bool:
        if next(count) == step:
            raise Crash
        return put(*arguments)

    monkeypatch.setattr(storage.LocalStore, "put_if_absent", crashing)


@pytest.mark.parametrize("step", [0, 1])
def test_commit_unit__a_crash_before_the_commit_point_shows_no_row(
    table: Table, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patch:
        crash_before(patch, step)
        with pytest.raises(Crash):
            commit_unit(table, UNIT, rows("a", "b", "c"), rejects("d"), {})
    assert stored(table, "data") == []
    assert commit_unit(table, UNIT, rows("a", "b", "c"), rejects("d"), {}).created
    assert (stored(table, "data"), stored(table, "rejects")) == (["a", "b", "c"], ["d"])


def test_commit_unit__settled_rejects_bind_a_later_attempt(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        crash_before(patch, 1)
        with pytest.raises(Crash):
            commit_unit(table, UNIT, rows("a", "b"), rejects("c", "d"), {})
    committed = commit_unit(table, UNIT, rows("a", "b", "d"), rejects("c"), {})
    assert committed == Committed(
        2, 2, created=True, num_bytes=Path(table.uri, "data", f"{NAME}.parquet").stat().st_size
    )
    assert (stored(table, "data"), stored(table, "rejects")) == (["a", "b"], ["c", "d"])


def test_commit_unit__an_image_lost_after_its_rejects_were_settled_keeps_the_unit_pending(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        crash_before(patch, 1)
        with pytest.raises(Crash):
            commit_unit(table, UNIT, rows(*ALL), rejects(), {})
    with pytest.raises(TransientError, match=r"the first: b: gone.*promised again"):
        commit_unit(table, UNIT, rows("a", "c", "d"), rejects("b"), {})
    assert stored(table, "data") == []


def test_commit_unit__a_writer_that_slept_through_a_commit_changes_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = storage.LocalStore.put_if_absent

    def overtaken(store: storage.LocalStore, uri: str, data: bytes) -> bool:
        monkeypatch.undo()
        commit_unit(table, UNIT, rows(*ALL), rejects(), {})
        return put(store, uri, data)

    monkeypatch.setattr(storage.LocalStore, "put_if_absent", overtaken)
    assert commit_unit(table, UNIT, rows("a", "b", "c"), rejects("d"), {}) == Committed(4, 0, created=False)
    assert (stored(table, "data"), stored(table, "rejects")) == (list(ALL), [])


def test_commit_unit__rows_that_it_replaces_leave_their_unit(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_unit(table, UNIT, rows("a", "b", "c"), rejects("d"), {"run": "old"})
    newer = Unit("000001-plan", 0, 2)
    replaces = {UNIT.name: pa.array(["a", "d"])}
    with monkeypatch.context() as patch:
        crash_before(patch, 1)  # after the old rows have left, before the new ones are there
        with pytest.raises(Crash):
            commit_unit(table, newer, rows("a", "d"), rejects(), {"run": "new"}, replaces)
    assert (stored(table, "data"), stored(table, "rejects")) == (["b", "c"], [])
    assert commit_unit(table, newer, rows("a", "d"), rejects(), {"run": "new"}, replaces).created
    assert (stored(table, "data"), stored(table, "rejects")) == (["a", "b", "c", "d"], [])
    assert b'"run": "old"' in pq.read_schema(table.data_uri(NAME)).metadata[b"vep"]


def test_take_out__is_idempotent_and_loses_to_no_other_writer(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_unit(table, UNIT, rows(*ALL), rejects(), {})
    replace_if = storage.LocalStore.replace_if

    def overtaken(store: storage.LocalStore, uri: str, data: bytes, version: str) -> bool:
        monkeypatch.undo()
        take_out(table, NAME, pa.array(["b"]))  # another run, while this one was about to replace the file
        return replace_if(store, uri, data, version)

    monkeypatch.setattr(storage.LocalStore, "replace_if", overtaken)
    assert take_out(table, NAME, pa.array(["a"])) == 1
    assert stored(table, "data") == ["c", "d"]
    assert take_out(table, NAME, pa.array(["a", "b"])) == 0
    assert take_out(table, NAME, None) == 2
    assert stored(table, "data") == []
    assert take_out(table, "000000-plan-000099", None) == 0
