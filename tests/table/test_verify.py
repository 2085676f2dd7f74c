"""Verification: every breach that is planted is found and named, and nothing legal is ever called one."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract import FeatureContract
from pipeline.errors import TableError
from pipeline.storage import store_for
from pipeline.table import Ledger, Table, TableInfo, create_table, encode, take_back
from pipeline.table.audit import Audit, audit
from pipeline.table.schema import PREDICTION_SCHEMA
from tests.memory_store import MemoryStore, Writer
from tests.s3 import S3Server
from tests.table import tables
from tests.table.tables import commit, embed, forget_manifests, make, path, refs, rejects, rewrite, rows
from tests.table.test_planning import plan


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return make(tmp_path / "table")


def found(table: Table) -> list[tuple[str, str]]:
    """Return what is wrong, as pairs of the check and the file's name."""
    return [(breach.check, Path(breach.where).name) for breach in audit(table).findings.kept]


def only(table: Table, check: str, file: Path | str, message: str) -> None:
    """Check that one thing is wrong, and which."""
    (breach,) = audit(table).findings.kept
    assert (breach.check, breach.where) == (check, str(file)), breach
    assert message in breach.message


def ledger(checked: Audit) -> Ledger:
    assert len(checked.findings) == 0, checked.findings.kept
    assert checked.account is not None
    return checked.account.ledger


def test_audit__a_whole_table(table: Table) -> None:
    embed(table, *"abcde", rejected="be")
    checked = audit(table)
    assert ledger(checked) == Ledger(planned=5, embedded=3, rejected=2, pending=0)
    assert (checked.num_files, checked.num_plans, checked.unfinished) == (6, 1, [])
    assert sorted((unit.number, rows) for _, unit, rows in checked.committed) == [(0, 1), (1, 2), (2, 0)]


def test_audit__an_empty_table_is_whole(table: Table) -> None:
    assert ledger(audit(table)) == Ledger(0, 0, 0, 0)


def test_audit__a_plan_without_manifest_is_told_and_no_breach(table: Table) -> None:
    planned = embed(table, *"abc")
    forget_manifests(table)
    checked = audit(table)
    assert ledger(checked).pending == 0
    assert checked.unfinished == [planned.plans[0].name]


@pytest.mark.parametrize("kind", ["changed", "pruned", "pruned and back", "container"])
def test_audit__tables_that_lost_rows_are_whole(table: Table, kind: str) -> None:
    if kind == "container":
        for version in "12":
            shard = tables.containers("x.tar", version=version)
            tables.run(table, plan(table, shard, containers=True), members=2 + int(version))
        assert ledger(audit(table)) == Ledger(planned=4, embedded=3, rejected=1, pending=0)
        return
    embed(table, *"abcd", rejected="b")
    if kind == "changed":
        embed(table, *"bcd", version="2")
        assert ledger(audit(table)) == Ledger(planned=4, embedded=4, rejected=0, pending=0)
        return
    embed(table, *"ac", prune=True)
    assert ledger(audit(table)) == Ledger(planned=2, embedded=2, rejected=0, pending=0)
    if kind == "pruned and back":
        embed(table, *"abc")
        assert ledger(audit(table)) == Ledger(planned=3, embedded=3, rejected=0, pending=0)


def test_audit__pending_units_are_counted(table: Table) -> None:
    planned = plan(table, refs(*"abcde"))
    commit(table, planned.units[1], rejected="d")
    assert ledger(audit(table)) == Ledger(planned=5, embedded=1, rejected=1, pending=3)


def test_audit__settled_rejects_of_a_pending_unit_are_no_breach(table: Table) -> None:
    embed(table, *"abc", rejected="a")
    forget_manifests(table)
    path(table, "data").unlink()
    assert ledger(audit(table)) == Ledger(planned=3, embedded=1, rejected=0, pending=2)


def test_audit__old_rows_of_pending_changes_are_leaving(table: Table) -> None:
    embed(table, *"abcd")
    plan(table, refs(*"bc", version="2"))
    checked = audit(table)
    assert ledger(checked) == Ledger(planned=4, embedded=2, rejected=0, pending=2)
    assert checked.account is not None
    assert (checked.account.leaving, checked.account.taken_back) == (2, 0)


def test_audit__rows_that_a_prune_has_not_taken_out_yet_are_leaving(table: Table) -> None:
    embed(table, *"abcd")
    planned = plan(table, refs("a"), prune=True)
    checked = audit(table)
    assert ledger(checked) == Ledger(planned=1, embedded=1, rejected=0, pending=0)
    assert checked.account is not None
    assert (checked.account.leaving, checked.account.taken_back) == (3, 3)
    forget_manifests(table)
    take_back(table, planned.plans, lambda _: None)
    assert (ledger(audit(table)).planned, list(tables.all_uris(table, "data"))) == (1, ["a"])


def test_audit__containers_are_counted_by_what_they_hold(table: Table) -> None:
    planned = plan(table, tables.containers(*"xyz"), containers=True)
    commit(table, planned.units[0])
    assert ledger(audit(table)) == Ledger(planned=5, embedded=2, rejected=1, pending=2)


def start(kind: str) -> tuple[Table, Writer]:
    """Return a table in which a run is about to change, add and take back, and that run."""
    table = Table("s3://bucket/table", MemoryStore())
    create_table(table, tables.INFO)
    if kind == "images":
        embed(table, *"abcef", rejected="be")
        return table, Writer(table.store, "run", lambda: embed(table, *"abcd", version="2", prune=True, rejected="a"))
    before = plan(table, tables.containers(*"xy", num_images=3), containers=True)
    commit(table, before.units[0])
    shards = [tables.containers("x", version="2", num_images=4), tables.containers("y", num_images=3)]
    return table, Writer(table.store, "run", lambda: tables.run(table, plan(table, shards, containers=True)))


@pytest.mark.parametrize("kind", ["images", "containers"])
def test_audit__what_a_run_leaves_that_is_killed_at_any_moment_is_no_breach(kind: str) -> None:
    table, run = start(kind)
    states = set()
    while run.next is not None:
        if run.next.writes:
            checked = audit(table)
            states.add((ledger(checked), checked.account and checked.account.leaving))
        run.step()
    assert run.error is None
    final = audit(table)
    assert (ledger(final).pending, final.account and final.account.leaving) == (0, 0)
    assert len(states) > 3


@pytest.mark.parametrize("writes", [1, 1000])
@pytest.mark.parametrize("kind", ["images", "containers"])
def test_audit__a_run_at_work_is_no_breach(kind: str, writes: int) -> None:
    """Whatever the run has written before each of the reads of the audit: one file more each time, or all it has to."""
    for after in itertools.count():
        table, run = start(kind)
        store = tables.BusyStore(table.store, run, after, writes)
        checked = audit(Table(table.uri, store))
        assert (checked.findings.kept, run.error) == ([], None), f"after {after} reads"
        while run.next is not None:
            run.step()
        assert (run.error, ledger(audit(table)).pending) == (None, 0)
        if not store.begun:
            break
    assert after > 10


def predictions(*uris: str) -> pa.Table:
    values = [
        {
            "uri": uri,
            "sha256": tables.digest(uri),
            "predicted_label": "x",
            "probability": 1.0,
            "top5_labels": ["x", "y"],
            "top5_probabilities": [1.0, 0.0],
        }
        for uri in uris
    ]
    return pa.Table.from_pylist(values, schema=PREDICTION_SCHEMA)


def test_audit__predictions_of_a_table_have_no_plans(table: Table, tmp_path: Path) -> None:
    embed(table, *"abc")
    output = Table(str(tmp_path / "output"))
    create_table(output, TableInfo("predictions", tables.CONTRACT, None, "aa"))
    for file in sorted(Path(table.uri, "data").iterdir()):
        uris = pq.read_table(file)["uri"].to_pylist()
        output.store.put_if_absent(f"{output.uri}/data/{file.name}", encode(predictions(*uris), {}))
    assert ledger(audit(output)) == Ledger(planned=3, embedded=3, rejected=0, pending=0)
    twice = path(output, "data", 1)
    twice.write_bytes(encode(predictions(*"ca"), {}))
    only(output, "uniqueness", twice, "the first: a, also in data/")
    not_finite = predictions("c")
    twice.write_bytes(encode(not_finite.set_column(5, "probability", pa.array([np.nan], pa.float32())), {}))
    only(output, "files", twice, "in probability; the first: c")


def test_audit__no_table_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"found no table\.json"):
        audit(Table(str(tmp_path)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "found no table.json"),
        ("{", "is no JSON"),
        ('{"format_version": 9}', "Expected table format 1"),
        (json.dumps({**tables.INFO.to_json(), "kind": "other"}), "kind 'other'"),
        (json.dumps({**tables.INFO.to_json(), "contract": 3}), "It is damaged"),
    ],
)
def test_audit__a_table_json_that_can_not_be_read(table: Table, content: str | None, message: str) -> None:
    embed(table, *"ab")
    file = Path(table.info_uri)
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    only(table, "table", file, message)


def test_audit__a_flipped_byte_in_a_file_that_a_manifest_names(table: Table) -> None:
    embed(table, *"abcd")
    file = path(table, "data", 1)
    data = bytearray(file.read_bytes())
    place = data.index(np.array([1, 2, 1, 2], np.float32).tobytes())  # among the embeddings: the file still reads
    data[place] ^= 1
    file.write_bytes(data)
    only(table, "manifests", file, "Expected SHA-256")


def test_audit__a_manifest_that_does_not_agree_with_itself_or_its_files(table: Table) -> None:
    planned = embed(table, *"abcd")
    manifest = Path(table.manifest_uri(planned.plans[0].name))
    value: dict[str, Any] = json.loads(manifest.read_text())
    for change, message in (
        ({"ledger": {**value["ledger"], "embedded": 3, "planned": 3}}, "The ledger has 3 embedded and 0 rejected"),
        ({"ledger": {**value["ledger"], "planned": 5}}, "planned = embedded + rejected"),
        ({"ledger": None}, "planned = embedded + rejected"),
        ({"num_units": 3}, "Expected num_units to be 2, got 3"),
        ({"contract_digest": "0"}, "Expected contract_digest"),
        ({"plan": "another"}, "it is that of plan another"),
        ({"files": [{"path": "x"}]}, "it is damaged (KeyError: 'rows')"),
    ):
        manifest.write_text(json.dumps({**value, **change}))
        only(table, "manifests", manifest, message)
    value["files"][0]["rows"] = 3
    manifest.write_text(json.dumps({**value, "ledger": {**value["ledger"], "planned": 5, "embedded": 5}}))
    only(table, "manifests", path(table, "data"), "Expected 3 rows")


def test_audit__a_file_that_a_manifest_names_is_gone(table: Table) -> None:
    embed(table, *"abcd")
    for folder in ("data", "rejects"):
        path(table, folder, 1).unlink()
    assert {check for check, _ in found(table)} == {"manifests"}
    assert {breach.message[-11:] for breach in audit(table).findings.kept} == {"found none."}


def test_audit__a_duplicated_row(table: Table) -> None:
    embed(table, *"abcd")
    forget_manifests(table)
    file = path(table, "data", 1)
    rewrite(file, rows(*"cdc"))
    only(
        table,
        "uniqueness",
        file,
        "1 of its rows are of images that have another row or reject, too; the first: c, twice",
    )
    rewrite(file, rows(*"cda"))
    only(table, "uniqueness", file, f"the first: a, also in data/{path(table, 'data').name}")


def test_audit__a_row_and_a_reject_of_one_image(table: Table) -> None:
    embed(table, *"abcd")
    forget_manifests(table)
    file = path(table, "rejects")
    rewrite(file, rejects("b"))
    only(table, "uniqueness", file, "the first: b, also in data/")


def test_audit__an_old_row_beside_the_new_one(table: Table) -> None:
    embed(table, *"abcd")
    before = path(table, "data").read_bytes()
    embed(table, *"ab", version="2")
    forget_manifests(table)
    path(table, "data").write_bytes(before)
    only(table, "uniqueness", path(table, "data", 2), "2 of its rows are of images that have another row")


def test_audit__an_image_that_two_containers_have(table: Table) -> None:
    planned = plan(table, tables.containers(*"xy"), containers=True)
    for unit in planned.units:
        commit(table, unit)
    rewrite(path(table, "data", 1), rows("y#0", "x#0"))
    only(table, "uniqueness", path(table, "data", 1), "the first: x#0")


def test_audit__a_missing_row(table: Table) -> None:
    embed(table, *"abcde", rejected="b")
    forget_manifests(table)
    file = path(table, "data", 1)
    rewrite(file, rows("d"))
    only(
        table, "ledger", file, "1 images that this committed unit is to hold have neither a row in it nor a reject; the"
    )
    assert "first: c." in audit(table).findings.kept[0].message
    checked = audit(table).account
    assert checked is not None
    assert checked.ledger == Ledger(planned=5, embedded=3, rejected=1, pending=0)


def test_audit__a_missing_row_of_a_container(table: Table) -> None:
    planned = plan(table, tables.containers(*"xy", num_images=3), containers=True)
    for unit in planned.units:
        commit(table, unit)
    assert ledger(audit(table)).planned == 6
    rewrite(path(table, "data"), rows("x#0"))
    only(
        table,
        "ledger",
        path(table, "data"),
        "Expected 3 images of a container in this committed unit, found 1 rows and 1",
    )


def test_audit__rows_of_a_container_that_was_replaced(table: Table) -> None:
    for version in "12":
        tables.run(table, plan(table, tables.containers("x", version=version), containers=True))
    forget_manifests(table)
    rewrite(path(table, "data"), rows("x#8", "x#9"))
    only(table, "ledger", path(table, "data"), "Expected 0 images of a container in this committed unit (a later plan")


def test_audit__rows_of_images_that_the_unit_does_not_hold(table: Table) -> None:
    embed(table, *"abcd")
    embed(table, "d", prune=True)
    forget_manifests(table)
    rewrite(path(table, "data"), rows("stranger"))
    only(
        table,
        "ledger",
        path(table, "data"),
        "1 rows are of images which no plan promises to this unit; the first: stranger",
    )


def test_audit__a_row_that_a_prune_has_taken_out_is_back(table: Table) -> None:
    embed(table, *"abcd")
    before = path(table, "data").read_bytes()
    planned = plan(table, refs(*"bcd"), prune=True)
    assert ledger(audit(table)).planned == 3
    tables.run(table, planned)
    path(table, "data").write_bytes(before)
    forgotten = Path(table.manifest_uri(planned.plans[0].name))
    forgotten.unlink()
    only(table, "ledger", path(table, "data"), "1 rows are of images which a plan has taken back; the first: a")


def test_audit__a_row_in_a_unit_that_has_lost_it(table: Table) -> None:
    embed(table, *"abcd")
    embed(table, "a", version="2")
    forget_manifests(table)
    rewrite(path(table, "data", 0), rows(*"ab"))
    rewrite(path(table, "data", 2), rows())
    only(table, "ledger", path(table, "data", 0), f"which unit {path(table, 'data', 2).stem} is to hold; the first: a")


def test_audit__a_deleted_rejects_file(table: Table) -> None:
    embed(table, *"abcd", rejected="b")
    forget_manifests(table)
    file = path(table, "rejects")
    file.unlink()
    only(table, "ledger", file, "Expected a rejects file")


def test_audit__a_file_that_is_no_parquet(table: Table) -> None:
    embed(table, *"abcd")
    forget_manifests(table)
    file = path(table, "data")
    file.write_bytes(file.read_bytes()[:-100])
    only(table, "files", file, "Expected a Parquet file, but it can't be read")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("embedding", pa.array([[1.0, np.nan]] * 2, pa.list_(pa.float32(), 2)), "in embedding; the first: a"),
        ("embedding", pa.array([[1.0, np.inf]] * 2, pa.list_(pa.float32(), 2)), "in embedding; the first: a"),
        ("embedding", pa.array([[1.0]] * 2, pa.list_(pa.float32(), 1)), "fixed_size_list<"),
        ("embedding", pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float16(), 2)), "got fixed_size_list<"),
        ("sha256", pa.array(["0" * 64, "x"]), "1 are others, such as 'x'"),
        ("sha256", pa.array(["0" * 64, None]), "Expected a value in each row of column sha256, 1 have none"),
        ("width", None, "Expected a column width (int32), found none"),
        ("price", pa.array([1, 2]), "got price as well"),
    ],
)
def test_audit__values_and_columns(table: Table, name: str, values: pa.Array | None, message: str) -> None:
    embed(table, *"ab")
    forget_manifests(table)
    file = path(table, "data")
    content = pq.read_table(file)
    place = content.schema.get_field_index(name)
    if values is None:
        content = content.drop_columns([name])
    elif place < 0:
        content = content.append_column(name, values)
    else:
        content = content.set_column(place, name, values)
    rewrite(file, content)
    only(table, "files", file, message)


def test_audit__a_reject_of_an_unknown_kind(table: Table) -> None:
    embed(table, *"ab", rejected="b")
    forget_manifests(table)
    file = path(table, "rejects")
    for name, message in (("code", "Expected values of code to be empty, missing"), ("stage", "read, decode, embed")):
        content = rejects("b")
        place = content.schema.get_field_index(name)
        rewrite(file, content.set_column(place, content.schema.field(name), pa.array(["nonsense"])))
        only(table, "files", file, message)


def test_audit__extra_columns_are_those_of_the_plan(table: Table) -> None:
    listed = refs(*"ab").append_column("price", pa.array([1, None])).append_column("tags", pa.array([["x"], []]))
    planned = plan(table, listed)
    commit(table, planned.units[0])
    assert [breach.message for breach in audit(table).findings.kept] == [
        "Expected a column price (int64), found none.",
        "Expected a column tags (list<element: string>), found none.",
    ]
    rewrite(
        path(table, "data"), rows(*"ab").append_column("price", listed["price"]).append_column("tags", listed["tags"])
    )
    assert found(table) == []


def test_audit__features_of_another_contract(table: Table) -> None:
    embed(table, *"abcd")
    forget_manifests(table)
    file = path(table, "data")
    other = FeatureContract("pixels", "11", {"name": "p"}, 2, "none")
    rewrite(file, pq.read_table(file), contract=other.to_json())
    only(table, "files", file, "they can't be compared")
    rewrite(file, pq.read_table(file), contract=None)
    only(table, "files", file, "Expected the table's feature contract")


def test_audit__the_file_of_another_unit(table: Table) -> None:
    embed(table, *"abcd")
    forget_manifests(table)
    shutil.copy(path(table, "rejects", 0), path(table, "rejects", 1))
    only(table, "files", path(table, "rejects", 1), "it is another unit's file")


def test_audit__a_missing_plan_is_a_breach_and_its_files_are_no_orphans(table: Table) -> None:
    embed(table, *"ab")
    embed(table, *"abcd")
    plan_file = Path(table.plan_uri(1))
    plan_file.rename(plan_file.with_name(".gone"))
    only(table, "plans", plan_file, "Expected plan 1, since data/000001-")
    age(path(table, "data", 1), 1e6)
    cleaned = audit(table, 0)
    assert (cleaned.left.removed, cleaned.account) == ([], None)
    embed_again = Path(table.plan_uri(2))
    shutil.copy(Path(table.plan_uri(0)), embed_again)
    assert found(table) == [("plans", "000002.parquet"), ("plans", "000001.parquet")]


def test_audit__a_gap_in_the_plans(table: Table) -> None:
    for names in ("ab", "abcd", "abcdef"):
        plan(table, refs(*names))
    Path(table.plan_uri(1)).unlink()
    only(table, "plans", table.plan_uri(1), "there are later ones")


@pytest.mark.parametrize("damage", ["footer", "rows", "units"])
def test_audit__a_damaged_plan(table: Table, damage: str) -> None:
    embed(table, *"abcd")
    file = Path(table.plan_uri(0))
    data = bytearray(file.read_bytes())
    if damage == "footer":
        data[-40:-20] = b"\xff" * 20
    elif damage == "rows":
        data[8:60] = b"\xff" * 52
    else:
        content = pq.read_table(file)
        with pq.ParquetWriter(file, content.schema) as writer:
            writer.write_table(content.slice(0, 2))
        data = bytearray(file.read_bytes())
    file.write_bytes(data)
    forget_manifests(table)
    only(table, "plans", file, "damaged")


def age(file: Path, seconds: float) -> None:
    os.utime(file, (time.time() - seconds,) * 2)


def test_audit__an_orphan_is_removed_after_the_time_of_grace(table: Table) -> None:
    planned = embed(table, *"abcd")
    orphan = Path(table.data_uri(f"{planned.plans[0].name}-000002"))
    shutil.copy(path(table, "data"), orphan)
    only(table, "orphans", orphan, "no plan explains it. Remove it, or use --clean.")
    assert ledger_of_all(table) == Ledger(planned=4, embedded=4, rejected=0, pending=0)
    only_kept = audit(table, 86400)
    assert "It was written less than 86400 s ago." in only_kept.findings.kept[0].message
    assert orphan.exists()
    age(orphan, 86401)
    cleaned = audit(table, 86400)
    assert (cleaned.left.removed, len(cleaned.findings), orphan.exists()) == ([str(orphan)], 0, False)
    assert (found(table), len(list(Path(table.uri).rglob("*.parquet")))) == ([], 5)


def ledger_of_all(table: Table) -> Ledger:
    account = audit(table).account
    assert account is not None
    return account.ledger


def test_audit__an_orphan_with_the_only_row_of_an_image_is_never_removed(table: Table) -> None:
    embed(table, *"abcd")
    orphan = path(table, "data").with_name("000000-0123456789ab-000000.parquet")
    orphan.write_bytes(encode(rows("a", "elsewhere"), {}))
    age(orphan, 1e6)
    cleaned = audit(table, 0)
    assert cleaned.left.removed == []
    assert "rows of images that no committed unit has" in cleaned.findings.kept[0].message
    orphan.write_bytes(encode(rows("a"), {}))
    age(orphan, 1e6)
    assert audit(table, 0).left.removed == [str(orphan)]


def test_audit__orphans_among_rejects_and_manifests_are_told_and_no_breach(table: Table) -> None:
    planned = embed(table, *"ab")
    name = planned.plans[0].name
    orphans = {
        Path(table.rejects_uri(f"{name}-000009")),
        Path(table.manifest_uri("000000-0123456789ab")),
        Path(table.uri, "rejects", "notes.txt"),
    }
    shutil.copy(path(table, "rejects"), Path(table.rejects_uri(f"{name}-000009")))
    shutil.copy(Path(table.manifest_uri(name)), Path(table.manifest_uri("000000-0123456789ab")))
    Path(table.uri, "rejects", "notes.txt").write_text("mine")
    checked = audit(table)
    assert {*checked.left.orphans, *checked.left.foreign} == {str(file) for file in orphans}
    for file in orphans:
        age(file, 1e6)
    cleaned = audit(table, 86400)
    assert {file for file in orphans if file.exists()} == {Path(table.uri, "rejects", "notes.txt")}
    assert ledger(cleaned).planned == 2


def test_audit__a_foreign_file_among_the_data_is_a_breach_and_never_removed(table: Table) -> None:
    embed(table, *"ab")
    mine = Path(table.uri, "data", "mine.parquet")
    mine.write_bytes(b"x")
    age(mine, 1e6)
    only(table, "orphans", mine, "this project didn't write it. Remove it.")
    assert audit(table, 0).left.removed == []
    assert mine.exists()


def test_audit__temporary_files_are_told_and_removed_after_the_time_of_grace(table: Table) -> None:
    embed(table, *"ab")
    names = ("data/.x.parquet.0123456789ab.tmp", ".table.json.0123456789ab.tmp", "plans/.0.parquet.0123456789ab.tmp")
    old, young = [Path(table.uri, name) for name in names], Path(table.uri, "rejects/.y.parquet.0123456789ab.tmp")
    others = [Path(table.uri, name) for name in ("data/.lock", "data/.nfs0001", "data/.mine.tmp")]
    for file in (*old, young, *others):
        file.write_bytes(b"half")
        age(file, 90_000)
    age(young, 80_000)
    checked = audit(table)
    assert set(checked.left.temporary) == {str(file) for file in (*old, young)}
    assert (len(checked.findings), checked.left.removed) == (0, [])
    cleaned = audit(table, 86400)
    assert sorted(cleaned.left.removed) == sorted(map(str, old))
    assert [file.exists() for file in (*old, young, *others)] == [False] * 3 + [True] * 4
    assert cleaned.left.kept == {str(young): "It was written less than 86400 s ago."}


def test_audit__counts_all_breaches_and_keeps_the_first(table: Table) -> None:
    embed(table, *"ab")
    for number in range(150):
        Path(table.uri, "data", f"mine-{number:03d}.parquet").write_bytes(b"x")
    findings = audit(table).findings
    assert (len(findings), len(findings.kept), findings.kept[0].where[-16:]) == (150, 100, "mine-000.parquet")


@pytest.mark.s3
def test_audit__in_a_bucket(s3_server: S3Server, tmp_path: Path) -> None:
    bucket = s3_server.make_bucket("verified")
    table = Table(f"{bucket}/table", store_for(bucket, s3_server.options))
    create_table(table, tables.INFO)
    embed(table, *"abcd", rejected="b")
    embed(table, *"acd", version="2", prune=True)
    assert ledger(audit(table)) == Ledger(planned=3, embedded=3, rejected=0, pending=0)
    name = next(name for name in table.store.list_names(f"{table.uri}/data") if name.startswith("000001"))
    data = table.store.read_bytes(f"{table.uri}/data/{name}")
    orphan = f"{table.uri}/data/{name.replace('-000000', '-000007')}"
    table.store.put_if_absent(orphan, data)
    only(table, "orphans", orphan, "no plan explains it")
    assert audit(table, 86400).left.removed == []
    time.sleep(1.1)  # the store's times are in whole seconds
    assert audit(table, 0).left.removed == [orphan]
    table.store.replace(f"{table.uri}/data/{name}", data + b"x")
    assert {check for check, _ in found(table)} == {"files", "manifests"}
