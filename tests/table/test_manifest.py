"""Ledger and manifest: what they count, and that they say the truth."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.contract import FeatureContract
from pipeline.errors import ContractMismatch, TableError
from pipeline.refs import ImageRef, refs_table
from pipeline.table import (
    Ledger,
    Table,
    TableInfo,
    Unit,
    check_info,
    commit_unit,
    count_codes,
    create_table,
    make_ledger,
    pending_units,
    plan_missing,
    read_info,
    write_manifest,
)
from tests.table.test_commit import rejects, rows

INFO = TableInfo("embeddings", FeatureContract("pixels", "00", {"name": "p"}, 2, "none"), "float32")


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path))


@pytest.fixture
def units(table: Table) -> list[Unit]:
    refs = [ImageRef(name, "1", None, None) for name in "abcd"]
    return plan_missing(table, INFO.digest, refs_table(refs), 2)[0]


def test_make_ledger__adds_up_at_every_step(table: Table, units: list[Unit]) -> None:
    assert make_ledger(table, units) == Ledger(planned=4, embedded=0, rejected=0, pending=4)
    commit_unit(table, units[0], rows("a"), rejects("b"), {})
    assert make_ledger(table, units) == Ledger(planned=4, embedded=1, rejected=1, pending=2)
    assert pending_units(table, units) == [units[1]]
    assert not write_manifest(table, INFO, units, {}, {})
    commit_unit(table, units[1], rows("c", "d"), rejects(), {})
    assert make_ledger(table, units) == Ledger(planned=4, embedded=3, rejected=1, pending=0)
    assert count_codes(table, units) == {"missing": 1}


def test_write_manifest__names_each_file_with_its_digest(table: Table, units: list[Unit]) -> None:
    committed = commit_unit(table, units[0], rows("a"), rejects("b"), {})
    assert committed.sha256 is not None
    commit_unit(table, units[1], rows("c", "d"), rejects(), {})
    assert write_manifest(table, INFO, units, {"run": "r"}, {units[0]: committed.sha256})
    assert not write_manifest(table, INFO, units, {"run": "later"}, {})
    manifest = json.loads(Path(table.manifest_uri(units[0].plan)).read_text())
    assert manifest["ledger"] == {"planned": 4, "embedded": 3, "rejected": 1, "pending": 0}
    assert manifest["num_units"] == 2
    assert manifest["completed_by"] == {"run": "r"}
    assert len(manifest["files"]) == 4
    for file in manifest["files"]:
        data = Path(table.uri, file["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file["sha256"]
    assert sum(file["rows"] for file in manifest["files"]) == 4


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
