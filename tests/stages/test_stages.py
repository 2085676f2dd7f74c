"""A unit's way through the stages, with a source and an engine of the tests' own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.engines import EngineInfo
from pipeline.errors import ConfigError, ImageReject, RejectCode
from pipeline.images import Limits, Pixels
from pipeline.preprocessing import Preprocessing
from pipeline.refs import ImageRef, refs_table
from pipeline.stages.commit import commit_block, to_schema
from pipeline.stages.embed import embed_unit, give_up
from pipeline.stages.read import read_block, read_unit
from pipeline.table import Table, Unit, data_schema, plan_missing
from tests import samples

SCHEMA = data_schema("float32", 3)
PRESET = Preprocessing("p", "exact", 8, 8, "opencv-bilinear", "BGR", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Memory:
    """A source in memory; an exception in place of an image is raised, one that stands in a list once each."""

    def __init__(self, images: dict[str, bytes | Exception | list[bytes | Exception]]) -> None:
        self.images, self.skipped = images, Counter[str]()

    def refs(self) -> Iterator[ImageRef]:
        for name in self.images:
            yield ImageRef(name, "1", name[0], "train")

    def read(self, uri: str, max_bytes: int) -> bytes:
        value = self.images[uri]
        if isinstance(value, list):
            value = value.pop(0)
        if isinstance(value, Exception):
            raise value
        return value[: max_bytes + 1]


class MeanColour:
    """An engine whose embedding is the mean colour."""

    def __init__(self, batch_size: int = 2) -> None:
        self.info = EngineInfo("mean", "fp32", "test", batch_size)

    def embed_batch(self, pixels: Pixels) -> np.ndarray:
        return pixels.mean((1, 2)).astype(np.float32)


class Broken(MeanColour):
    def embed_batch(self, pixels: Pixels) -> np.ndarray:
        raise RuntimeError("out of order")


class Infinite(MeanColour):
    def embed_batch(self, pixels: Pixels) -> np.ndarray:
        vectors = super().embed_batch(pixels)
        vectors[vectors[:, 0] > 200] = np.inf
        return vectors


def colour(value: int) -> bytes:
    return samples.encode(np.full((16, 16, 3), value, np.uint8), "PNG")


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path))


def plan(table: Table, source: Memory) -> Unit:
    (unit,), _ = plan_missing(table, "promise", refs_table(source.refs()), 100)
    return unit


def through(
    table: Table, source: Memory, engine: MeanColour, limits: Limits | None = None
) -> tuple[pa.Table, pa.Table]:
    unit = plan(table, source)
    counted: list[int] = []
    block = read_unit(table, unit, source, PRESET, limits or Limits(), backoff_s=(0.0, 0.0))
    block = embed_unit(engine, block, SCHEMA.field("embedding").type, counted.append)
    report = commit_block(block, table, lambda rows: to_schema(rows, SCHEMA), {"run": "r"})
    if report.trouble is not None:
        raise TimeoutError(report.trouble)
    assert sum(counted) == unit.num_images == report.embedded + report.rejected
    return pq.read_table(f"{table.uri}/data"), pq.read_table(f"{table.uri}/rejects")


def test_a_unit__good_images_get_rows_and_bad_ones_rejects(table: Table) -> None:
    source = Memory(
        {
            "a": colour(10),
            "b": b"no image",
            "c": colour(30),
            "d": ImageReject("read", RejectCode.MISSING, "gone"),
            "e": colour(50),
        }
    )
    rows, rejects = through(table, source, MeanColour())
    assert rows.schema.remove_metadata() == SCHEMA
    assert rows["uri"].to_pylist() == ["a", "c", "e"]
    assert rows["embedding"].to_pylist() == [[10.0] * 3, [30.0] * 3, [50.0] * 3]
    assert rows["width"].to_pylist() == [16] * 3
    assert rows["label"].to_pylist() == ["a", "c", "e"]
    assert [len(value) for value in rows["sha256"].to_pylist()] == [64] * 3
    found = rejects.select(["uri", "stage", "code", "label", "split"]).to_pylist()
    assert found == [
        {"uri": "b", "stage": "decode", "code": "unsupported", "label": "b", "split": "train"},
        {"uri": "d", "stage": "read", "code": "missing", "label": "d", "split": "train"},
    ]
    assert rejects["sha256"].to_pylist()[1] is None
    assert len(rejects["sha256"].to_pylist()[0]) == 64


def test_a_unit__of_rejects_only_commits_an_empty_data_file(table: Table) -> None:
    rows, rejects = through(table, Memory({"a": b"", "b": b"?"}), MeanColour())
    assert len(rows) == 0
    assert rejects["code"].to_pylist() == ["empty", "unsupported"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_a_unit__rejects_between_good_images_do_not_shift_embeddings(table: Table, batch_size: int) -> None:
    images = {f"{i:02d}": b"" if i % 3 == 1 else colour(10 * i) for i in range(20)}
    rows, _ = through(table, Memory(dict(images)), MeanColour(batch_size))
    assert all(row["embedding"] == [10.0 * int(row["uri"])] * 3 for row in rows.to_pylist())


def test_a_unit__a_passing_read_error_is_retried(table: Table) -> None:
    rows, rejects = through(table, Memory({"a": [OSError(5, "flaky"), OSError(5, "flaky"), colour(1)]}), MeanColour())
    assert (len(rows), len(rejects)) == (1, 0)


@pytest.mark.parametrize("error", [OSError(5, "disk trouble"), PermissionError(13, "denied"), TimeoutError("slow")])
def test_a_unit__a_lasting_read_error_keeps_it_pending_and_makes_no_reject(table: Table, error: Exception) -> None:
    with pytest.raises(TimeoutError, match="b can't be read now"):
        through(table, Memory({"a": colour(1), "b": error, "c": colour(2)}), MeanColour())
    assert not Path(table.uri, "data").exists()
    assert not Path(table.uri, "rejects").exists()


def test_a_unit__a_failing_engine_keeps_it_pending(table: Table) -> None:
    with pytest.raises(TimeoutError, match="engine mean failed: RuntimeError: out of order"):
        through(table, Memory({"a": colour(1)}), Broken())
    assert not Path(table.uri, "data").exists()


def test_a_unit__an_embedding_that_is_no_number_is_a_reject(table: Table) -> None:
    rows, rejects = through(table, Memory({"a": colour(1), "b": colour(255)}), Infinite())
    assert rows["uri"].to_pylist() == ["a"]
    assert rejects.select(["uri", "stage", "code"]).to_pylist() == [
        {"uri": "b", "stage": "embed", "code": "non_finite"}
    ]


def test_a_unit__limits_are_applied(table: Table) -> None:
    rows, rejects = through(table, Memory({"a": colour(1)}), MeanColour(), Limits(max_pixels=255))
    assert rejects["code"].to_pylist() == ["too_large"]
    assert len(rows) == 0


def test_read_unit__pixels_are_those_of_the_preset(table: Table) -> None:
    data = samples.jpeg(3)
    source = Memory({"a": b"", "b": data})
    block = read_unit(table, plan(table, source), source, PRESET, Limits())
    pixels = np.frombuffer(block["pixels"][1].as_py(), np.uint8).reshape(8, 8, 3)
    np.testing.assert_array_equal(pixels, cv2.resize(cv2.imdecode(np.frombuffer(data, np.uint8), 1), (8, 8)))
    assert block["pixels"][0].as_py() == bytes(8 * 8 * 3)


def test_a_unit__whose_plan_can_not_be_read_stays_pending_and_says_why(table: Table) -> None:
    source = Memory({"a": colour(1), "b": colour(2)})
    unit = plan(table, source)
    Path(table.plan_uri(unit.plan)).write_bytes(b"damaged")
    (block,) = read_block(unit, table, source, PRESET, Limits())
    block = embed_unit(MeanColour(), block, SCHEMA.field("embedding").type, lambda _: None)
    report = commit_block(block, table, lambda rows: to_schema(rows, SCHEMA), {})
    assert (report.unit, report.num_images, report.created) == (0, 2, False)
    assert "Unit 0 can't be read now: ArrowInvalid" in str(report.trouble)


def test_a_unit__a_part_of_it_is_not_committed_as_the_whole(table: Table) -> None:
    source = Memory({"a": colour(1), "b": colour(2)})
    block = read_unit(table, plan(table, source), source, PRESET, Limits())
    block = embed_unit(MeanColour(), block.slice(0, 1), SCHEMA.field("embedding").type, lambda _: None)
    report = commit_block(block, table, lambda rows: to_schema(rows, SCHEMA), {})
    assert "promises 2 images, got 1 + 0" in str(report.trouble)
    assert not Path(table.uri, "data").exists()


def test_a_unit__no_memory_for_an_image_keeps_it_pending(table: Table) -> None:
    with pytest.raises(TimeoutError, match="a can't be read now: MemoryError"):
        through(table, Memory({"a": MemoryError("none left")}), MeanColour())


def test_a_unit__without_an_engine_stays_pending(table: Table) -> None:
    source = Memory({"a": colour(1)})
    for error, hopeless in ((ConfigError("no such precision"), True), (RuntimeError("busy"), False)):
        block = read_unit(table, plan(table, source), source, PRESET, Limits())
        block = give_up(block, SCHEMA.field("embedding").type, error)
        report = commit_block(block, table, lambda rows: to_schema(rows, SCHEMA), {})
        assert report.hopeless == hopeless
        assert str(error) in str(report.trouble)
    assert not Path(table.uri, "data").exists()
