"""Failures while a unit goes through its stages: a permanent one is a reject, any other leaves the unit pending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.engines import EngineInfo
from pipeline.errors import ImageReject
from pipeline.failures import Seam, Verdict
from pipeline.images import Limits
from pipeline.preprocessing import Preprocessing
from pipeline.refs import REF_SCHEMA
from pipeline.sources import Fetched, FolderSource
from pipeline.stages.commit import UnitReport, commit_block
from pipeline.stages.embed import embed_unit, give_up
from pipeline.stages.read import read_unit
from pipeline.storage import FileInfo, LocalStore
from pipeline.table import Listing, Table, data_schema, plan_source
from tests import samples
from tests.failures.examples import Case, of

PRESET = Preprocessing("p", "exact", 8, 8, "opencv-bilinear", "BGR", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SCHEMA = data_schema("float32", 3)


class Failing:
    """A source of one image, which is a reject, or whose reading fails."""

    containers, identity = False, "failing"

    def __init__(self, error: Exception) -> None:
        self.error, self.skipped = error, Counter[str]()

    def columns(self) -> pa.Schema:
        return pa.schema([])

    def refs(self, unit_size: int) -> Iterator[pa.Table]:
        row = {"uri": "a.png", "version": "1", "num_images": 1, "label": None, "split": None}
        yield pa.Table.from_pylist([row], schema=REF_SCHEMA)

    def read(self, refs: pa.Table, max_bytes: int) -> Failing:
        self.promised = refs
        return self

    def images(self) -> Iterator[Fetched]:
        if not isinstance(self.error, ImageReject):
            raise self.error
        yield Fetched("a.png", self.error)

    def rows(self) -> pa.Table:
        return self.promised.select(["uri", "label", "split"])


class FailingEngine:
    """An engine that fails."""

    info = EngineInfo("failing", "fp32", "test", 1)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def embed_batches(self, batches: Any) -> Any:
        raise self.error


class FailingStore(LocalStore):
    """A store that fails in one method."""

    def __init__(self, method: str, error: Exception) -> None:
        def fail(*_: object) -> Any:
            raise error

        object.__setattr__(self, method, fail)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path / "table"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    samples.write(tmp_path / "images" / "a.jpg", samples.jpeg(0))
    return tmp_path / "images"


def run(
    table: Table, source: Any, error: Exception, store: LocalStore | None = None, engine: bool = True
) -> UnitReport:
    """Take a unit of one image through all stages, with an engine that fails if it is asked."""
    (unit,) = plan_source(table, Listing(source.identity, False, source.refs, pa.schema([]), "promise", 9)).units
    block = read_unit(table, unit, source, PRESET, Limits())
    kind = SCHEMA.field("embedding").type
    block = (
        embed_unit(FailingEngine(error), block, PRESET, kind, lambda _: None) if engine else give_up(block, kind, error)
    )
    where = table if store is None else Table(table.uri, store)
    return commit_block(block, where, lambda rows, _: rows.select(SCHEMA.names), {"run": "r"})


def check_pending(report: UnitReport, case: Case, table: Table, ends_the_run: bool) -> None:
    assert (report.rejected, report.embedded, report.created) == (0, 0, False)
    assert report.trouble is not None
    assert case.failure.advice in report.trouble
    assert "geheim" not in report.trouble
    assert report.hopeless == (ends_the_run and case.failure.verdict is Verdict.FATAL)
    assert not Path(table.uri, "data").exists()
    assert not Path(table.uri, "rejects").exists()


@of(Seam.ANYBODY)
def test_a_unit__whose_source_fails(case: Case, table: Table) -> None:
    report = run(table, Failing(case.error), case.error)
    if case.failure.verdict is not Verdict.REJECT:
        check_pending(report, case, table, ends_the_run=False)
        return
    assert (report.trouble, report.rejected) == (None, 1)
    assert case.failure.code is not None
    assert pq.read_table(f"{table.uri}/rejects")["code"].to_pylist() == [case.failure.code.value]


@of(Seam.SOURCE, rejects=False)
def test_a_unit__whose_image_can_not_be_opened(case: Case, table: Table, images: Path) -> None:
    report = run(table, FolderSource(str(images), FailingStore("read_bytes", case.error)), case.error)
    assert (report.trouble, report.rejected) == (None, 1)
    (images / "a.jpg").unlink()
    report = run(Table(f"{table.uri}-2"), FolderSource(str(images), Listed("read_bytes", case.error)), case.error)
    assert report.rejected == 0
    assert "gone or empty" in str(report.trouble)  # a lost mount


class Listed(FailingStore):
    """A store that lists an image, whatever is there."""

    def list_files(self, root: str) -> Iterator[FileInfo]:
        yield FileInfo(f"{root}/a.jpg", 1, "1")


@of(Seam.ANYBODY, rejects=False)
def test_a_unit__whose_engine_fails(case: Case, table: Table, images: Path) -> None:
    check_pending(run(table, FolderSource(str(images)), case.error), case, table, ends_the_run=False)


@of(Seam.ANYBODY, rejects=False)
def test_a_unit__that_has_no_engine(case: Case, table: Table, images: Path) -> None:
    check_pending(run(table, FolderSource(str(images)), case.error, engine=False), case, table, ends_the_run=True)


@of(Seam.ANYBODY, rejects=False)
def test_a_unit__that_can_not_be_written(case: Case, table: Table, images: Path) -> None:
    (images / "a.jpg").write_bytes(b"")
    store = FailingStore("put_if_absent", case.error)
    check_pending(run(table, FolderSource(str(images)), case.error, store), case, table, ends_the_run=True)
