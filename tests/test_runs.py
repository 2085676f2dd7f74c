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
from pipeline.targets import embedding_target

NAMES = ("a.png", "b.png", "c.png")
OPTIONS = RunOptions(max_reject_fraction=1.0)


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
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    for name in NAMES:
        (root / "sub" / name).touch()
    backbone = load_backbone("pixels")
    table = open_table(str(tmp_path / "table"))
    spec = BackboneSpec(backbone.contract, backbone.preprocessing, "none", str(tmp_path))
    target = embedding_target(table, TableInfo("embeddings", backbone.contract, "float32"), spec)
    part, whole = FolderSource(str(root / "sub")), FolderSource(str(root))
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
