"""A run's account of what it finds done, without a cluster: there is nothing to do."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.actor import BackboneSpec
from pipeline.backbones import load_backbone
from pipeline.errors import RunIncomplete
from pipeline.run_options import RunOptions
from pipeline.runs import plan_all, run
from pipeline.sources import FolderSource
from pipeline.table import Planned, Table, TableInfo, commit_unit, data_schema, open_table, unit_refs
from pipeline.table.schema import REJECT_SCHEMA
from pipeline.targets import Target, embedding_target

NAMES = ("a.png", "b.png", "c.png")
OPTIONS = RunOptions(max_reject_fraction=1.0)


def target_in(folder: Path) -> Target:
    """Return a new table in a folder, for embeddings by the backbone ``pixels``."""
    backbone = load_backbone("pixels")
    spec = BackboneSpec(backbone.contract, backbone.preprocessing, "none", str(folder))
    table = open_table(str(folder / "table"))
    return embedding_target(table, TableInfo("embeddings", backbone.contract, "float32"), spec)


def folder_of_empty_files(folder: Path) -> FolderSource:
    """Make a folder of three images without bytes."""
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).touch()
    return FolderSource(str(folder))


def reject_all(table: Table, planned: Planned) -> None:
    """Commit every unit, as if none of its images could be decoded."""
    for unit in planned.units:
        refs = unit_refs(table, unit)
        reject = {"stage": "decode", "code": "empty", "message": "The file has 0 bytes."}
        rejects = pa.Table.from_pylist([{"uri": uri, **reject} for uri in refs["uri"].to_pylist()], REJECT_SCHEMA)
        commit_unit(table, unit, data_schema("float32", 3072).empty_table(), rejects, {"run": "another"})


def test_run__what_an_unfinished_run_of_another_source_has_promised_is_pending_until_that_is_done(
    tmp_path: Path,
) -> None:
    target, root = target_in(tmp_path), tmp_path / "images"
    part, whole = folder_of_empty_files(root / "sub"), FolderSource(str(root))
    theirs = plan_all(OPTIONS, part, target, {})

    plan = partial(plan_all, OPTIONS, whole, target, {})
    with pytest.raises(RunIncomplete, match=r"3 of 3 images are pending. An unfinished run of another source .*/sub"):
        run(OPTIONS, whole, target, plan, None)

    def plan_while_they_finish() -> Planned:
        planned = plan()
        assert (planned.units, planned.others) == ([], theirs.units)
        reject_all(target.table, theirs)
        return planned

    record = run(OPTIONS, whole, target, plan_while_they_finish, None)
    assert record["status"] == "done"
    assert record["ledger"] == {"planned": 3, "embedded": 0, "rejected": 3, "pending": 0, "reused": 0}
    assert record["rejects_by_code"] == {"empty": 3}
    assert record == record | {"new": {"embedded": 0, "reused": 0, "rejected": 0}}


def test_run__names_only_the_sources_that_are_still_to_be_run(tmp_path: Path) -> None:
    target, root = target_in(tmp_path), tmp_path / "images"
    parts = [folder_of_empty_files(root / name) for name in ("one", "two")]
    finished, _ = (plan_all(OPTIONS, part, target, {}) for part in parts)
    whole = FolderSource(str(root))

    def plan_while_one_finishes() -> Planned:
        planned = plan_all(OPTIONS, whole, target, {})
        reject_all(target.table, finished)
        return planned

    with pytest.raises(RunIncomplete, match="3 of 6 images are pending") as caught:
        run(OPTIONS, whole, target, plan_while_one_finishes, None)
    assert "/two)" in str(caught.value)
    assert "/one" not in str(caught.value)
