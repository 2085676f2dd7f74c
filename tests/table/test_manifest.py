"""Ledger and manifest: what they count, and that they say the truth."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract import FeatureContract
from pipeline.errors import ContractMismatch, TableError
from pipeline.table import (
    Counts,
    Ledger,
    Table,
    TableInfo,
    Unit,
    check_info,
    commit_unit,
    count_codes,
    count_units,
    create_table,
    forget_files,
    is_complete,
    make_ledger,
    pending_units,
    read_info,
    take_out,
    write_manifest,
)
from tests.table.test_commit import rejects, rows
from tests.table.test_planning import plan, refs

INFO = TableInfo("embeddings", FeatureContract("pixels", "00", {"name": "p"}, 2, "none"), "float32")


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path))


@pytest.fixture
def units(table: Table) -> list[Unit]:
    return plan(table, refs(*"abcd"), 2).units


def ledger(table: Table, units: list[Unit]) -> Ledger:
    pending = pending_units(table, units)
    return make_ledger(units, count_units(table, [unit for unit in units if unit not in pending]))


def test_make_ledger__adds_up_at_every_step(table: Table, units: list[Unit]) -> None:
    assert ledger(table, units) == Ledger(planned=4, embedded=0, rejected=0, pending=4)
    commit_unit(table, units[0], rows("a"), rejects("b"), {"reused": 1})
    assert ledger(table, units) == Ledger(planned=4, embedded=1, rejected=1, pending=2, reused=1)
    assert pending_units(table, units) == [units[1]]
    commit_unit(table, units[1], rows("c", "d"), rejects(), {})
    assert ledger(table, units) == Ledger(planned=4, embedded=3, rejected=1, pending=0, reused=1)
    assert count_codes(table, [unit.name for unit in units]) == {"missing": 1}


def test_make_ledger__a_container_counts_what_it_held_once_that_is_known() -> None:
    units = [Unit("000000-p", 0, None), Unit("000000-p", 1, None), Unit("000000-p", 2, 5)]
    counts = {units[0].name: Counts(7, 2)}
    assert make_ledger(units, counts) == Ledger(planned=15, embedded=7, rejected=2, pending=6)


def test_make_ledger__rows_that_a_later_unit_is_about_to_replace_count_once() -> None:
    old, new = Unit("000000-p", 0, 3), Unit("000001-p", 0, 1)  # the old unit has promised 4, and holds 3 of them now
    assert make_ledger([old, new], {old.name: Counts(4, 0)}) == Ledger(planned=4, embedded=3, rejected=0, pending=1)


def check_manifest(table: Table, plan: str, num_files: int) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(Path(table.manifest_uri(plan)).read_text())
    assert len(manifest["files"]) == num_files
    for file in manifest["files"]:
        data = Path(table.uri, file["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file["sha256"]
        assert pq.read_metadata(Path(table.uri, file["path"])).num_rows == file["rows"]
    return manifest


def test_write_manifest__names_each_file_with_its_digest(table: Table, units: list[Unit]) -> None:
    committed = commit_unit(table, units[0], rows("a"), rejects("b"), {})
    assert committed.sha256 is not None
    commit_unit(table, units[1], rows("c", "d"), rejects(), {})
    counts = count_units(table, units)
    assert write_manifest(table, INFO, units, {"run": "r"}, {units[0].name: committed.sha256})
    assert not write_manifest(table, INFO, units, {"run": "later"}, {})
    manifest = check_manifest(table, units[0].plan, 4)
    assert manifest["ledger"] == {"planned": 4, "embedded": 3, "rejected": 1, "pending": 0, "reused": 0}
    assert manifest["num_units"] == 2
    assert manifest["completed_by"] == {"run": "r"}
    assert count_units(table, units) == counts


def test_forget_files__what_a_manifest_names_has_its_digest_at_every_step(table: Table, units: list[Unit]) -> None:
    commit_unit(table, units[0], rows("a"), rejects("b"), {})
    commit_unit(table, units[1], rows("c", "d"), rejects(), {})
    write_manifest(table, INFO, units, {}, {})
    forget_files(table, {units[1].name})
    check_manifest(table, units[0].plan, 2)
    assert not is_complete(table, units)
    take_out(table, units[1].name, pa.array(["c"]))
    check_manifest(table, units[0].plan, 2)
    assert write_manifest(table, INFO, units, {}, {})
    assert is_complete(table, units)
    assert check_manifest(table, units[0].plan, 4)["ledger"]["embedded"] == 2


def test_create_table__is_create_only_and_checked(table: Table) -> None:
    create_table(table, INFO)
    before = Path(table.info_uri).read_bytes()
    create_table(table, INFO)
    assert Path(table.info_uri).read_bytes() == before
    assert read_info(table) == INFO


def test_check_info__refuses_what_does_not_belong(table: Table) -> None:
    create_table(table, INFO)
    contract = FeatureContract("pixels", "11", {"name": "p"}, 2, "none")
    with pytest.raises(ContractMismatch, match="weights_sha256"):
        check_info(table, TableInfo("embeddings", contract, "float32"))
    with pytest.raises(TableError, match="--dtype float32"):
        check_info(table, TableInfo("embeddings", INFO.contract, "float16"))
    with pytest.raises(TableError, match="holds embeddings"):
        check_info(table, TableInfo("predictions", INFO.contract, None, "aa"))


def test_check_info__refuses_another_heads_predictions(table: Table) -> None:
    create_table(table, TableInfo("predictions", INFO.contract, None, "aa"))
    with pytest.raises(ContractMismatch, match="Use another --output"):
        check_info(table, TableInfo("predictions", INFO.contract, None, "bb"))


def test_check_info__refuses_predictions_with_another_threshold(table: Table) -> None:
    info = TableInfo("predictions", INFO.contract, None, "aa", 0.8, "unknown")
    create_table(table, info)
    assert read_info(table) == info
    check_info(table, info)
    others = [(None, None), (0.7, "unknown"), (0.8, "nobody knows")]
    for threshold, label in others:
        with pytest.raises(ContractMismatch, match="threshold 0.8 .*'unknown'.*Use another --output"):
            check_info(table, TableInfo("predictions", INFO.contract, None, "aa", threshold, label))


def test_table_info__a_threshold_is_part_of_what_a_plan_promises() -> None:
    infos = [
        TableInfo("predictions", INFO.contract, None, head, threshold, label)
        for head in ("aa", "bb")
        for threshold, label in ((None, None), (0.7, "unknown"), (0.8, "unknown"), (0.8, "?"))
    ]
    assert len({info.digest for info in infos}) == len(infos)


def test_read_info__of_predictions_from_before_there_were_thresholds(table: Table) -> None:
    info = TableInfo("predictions", INFO.contract, None, "aa")
    value = info.to_json()
    assert (value.pop("threshold"), value.pop("unknown_label")) == (None, None)
    table.store.put_if_absent(table.info_uri, json.dumps(value).encode())
    assert read_info(table) == info
    assert not {"threshold", "unknown_label"} & set(INFO.to_json())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "is no JSON"),
        ('{"format_version": 99}', "Expected table format 1"),
        ('{"format_version": 1}', "lacks"),
    ],
)
def test_read_info__says_what_is_wrong(table: Table, content: str, message: str) -> None:
    Path(table.info_uri).write_text(content)
    with pytest.raises(TableError, match=message):
        read_info(table)
