"""A unit's way through the stages, with a source and an engine of the tests' own."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.engines import EngineInfo
from pipeline.engines.lanes import SharedLanes
from pipeline.errors import ConfigError, ImageReject, RejectCode
from pipeline.images import Limits, Pixels
from pipeline.preprocessing import Preprocessing, decode_and_crop
from pipeline.refs import REF_SCHEMA
from pipeline.sources import Fetched
from pipeline.stages.busy import Busy as EngineTime
from pipeline.stages.commit import Finish, commit_block, to_schema
from pipeline.stages.costs import costs_of, summed
from pipeline.stages.embed import embed_unit, give_up
from pipeline.stages.read import Embedded, read_block, read_unit
from pipeline.table import Listing, Table, Unit, data_schema, plan_source
from tests import samples

SCHEMA = data_schema("float32", 3)
PRESET = Preprocessing("p", "exact", 8, 8, "opencv-bilinear", "BGR", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Images:
    """A source in memory; an exception in place of an image is raised, save for a reject."""

    containers = False
    identity = "images"

    def __init__(self, images: dict[str, bytes | Exception], extras: pa.Table | None = None) -> None:
        self.images, self.extras, self.skipped = images, extras, Counter[str]()

    def columns(self) -> pa.Schema:
        return pa.schema([]) if self.extras is None else self.extras.schema

    def refs(self, unit_size: int) -> Iterator[pa.Table]:
        values = [{"uri": n, "version": "1", "num_images": 1, "label": n[0], "split": "train"} for n in self.images]
        refs = pa.Table.from_pylist(values, schema=REF_SCHEMA)
        for field in self.columns():
            assert self.extras is not None
            refs = refs.append_column(field, self.extras[field.name])
        yield refs

    def read(self, refs: pa.Table, max_bytes: int) -> ImagesReading:
        return ImagesReading(self, refs, max_bytes)


class ImagesReading:
    def __init__(self, source: Images, refs: pa.Table, max_bytes: int) -> None:
        self.source, self.refs, self.max_bytes = source, refs, max_bytes

    def images(self) -> Iterator[Fetched]:
        for uri in self.refs["uri"].to_pylist():
            value = self.source.images[uri]
            if isinstance(value, Exception) and not isinstance(value, ImageReject):
                raise value
            yield Fetched(uri, value if isinstance(value, ImageReject) else value[: self.max_bytes + 1])

    def rows(self) -> pa.Table:
        return self.refs.drop_columns(["version", "num_images"])


class Shard(Images):
    """A container of the same images."""

    containers = True

    def refs(self, unit_size: int) -> Iterator[pa.Table]:
        shard = {"uri": "shard", "version": "1", "num_images": None, "label": None, "split": None}
        yield pa.Table.from_pylist([shard], schema=REF_SCHEMA)

    def read(self, refs: pa.Table, max_bytes: int) -> ImagesReading:
        (members,) = Images(self.images, self.extras).refs(0)
        return ImagesReading(self, members, max_bytes)


class Known:
    """What was embedded before, by the image's content."""

    def __init__(self, vectors: dict[bytes, list[float]]) -> None:
        self.asked: list[str] = []
        self.vectors = {hashlib.sha256(data).hexdigest(): vector for data, vector in vectors.items()}

    def find(self, sha256: Sequence[str]) -> list[Embedded | None]:
        self.asked.extend(sha256)
        found = (self.vectors.get(sha) for sha in sha256)
        return [None if v is None else Embedded(7, 8, np.asarray(v, np.float32).tobytes()) for v in found]


class MeanColour:
    """An engine whose embedding is the mean colour."""

    def __init__(self, batch_size: int = 2) -> None:
        self.info = EngineInfo("mean", "fp32", "test", batch_size)

    def embed_batches(self, batches: Iterable[Pixels]) -> Iterator[np.ndarray]:
        return map(self.embed_batch, batches)

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


def plan(table: Table, source: Images) -> Unit:
    listing = Listing(source.identity, source.containers, source.refs, source.columns(), "promise", 100)
    (unit,) = plan_source(table, listing).units
    return unit


def finish_for(columns: pa.Schema) -> Finish:
    return lambda rows, plan: to_schema(rows, plan, SCHEMA, {plan: columns})


finish = finish_for(pa.schema([]))


def through(
    table: Table,
    source: Images,
    engine: MeanColour,
    limits: Limits | None = None,
    known: Known | None = None,
) -> tuple[pa.Table, pa.Table]:
    unit = plan(table, source)
    counted: list[int] = []
    block = read_unit(table, unit, source, PRESET, limits or Limits(), known)
    block = embed_unit(engine, block, PRESET, SCHEMA.field("embedding").type, counted.append)
    report = commit_block(block, table, finish_for(source.columns()), {"run": "r"})
    if report.trouble is not None:
        raise TimeoutError(report.trouble)
    assert sum(counted) == report.embedded + report.rejected
    assert unit.num_images in (None, report.embedded + report.rejected)
    return tuple(pq.read_table(uri(unit.name)) for uri in (table.data_uri, table.rejects_uri))  # type: ignore[return-value]


def test_a_unit__good_images_get_rows_and_bad_ones_rejects(table: Table) -> None:
    source = Images(
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
    rows, rejects = through(table, Images({"a": b"", "b": b"?"}), MeanColour())
    assert len(rows) == 0
    assert rejects["code"].to_pylist() == ["empty", "unsupported"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_a_unit__rejects_between_good_images_do_not_shift_embeddings(table: Table, batch_size: int) -> None:
    images = {f"{i:02d}": b"" if i % 3 == 1 else colour(10 * i) for i in range(20)}
    rows, _ = through(table, Images(dict(images)), MeanColour(batch_size))
    assert all(row["embedding"] == [10.0 * int(row["uri"])] * 3 for row in rows.to_pylist())


@pytest.mark.parametrize("error", [OSError(5, "disk trouble"), PermissionError(13, "denied"), TimeoutError("slow")])
def test_a_unit__a_lasting_read_error_keeps_it_pending_and_makes_no_reject(table: Table, error: Exception) -> None:
    with pytest.raises(TimeoutError, match="images can't be read now: [A-Z][A-Za-z]+Error"):
        through(table, Images({"a": colour(1), "b": error, "c": colour(2)}), MeanColour())
    assert not Path(table.uri, "data").exists()
    assert not Path(table.uri, "rejects").exists()


def test_a_unit__a_failing_engine_keeps_it_pending(table: Table) -> None:
    with pytest.raises(TimeoutError, match="engine mean failed: RuntimeError: out of order"):
        through(table, Images({"a": colour(1)}), Broken())
    assert not Path(table.uri, "data").exists()


def test_a_unit__an_embedding_that_is_no_number_is_a_reject(table: Table) -> None:
    rows, rejects = through(table, Images({"a": colour(1), "b": colour(255)}), Infinite())
    assert rows["uri"].to_pylist() == ["a"]
    assert rejects.select(["uri", "stage", "code"]).to_pylist() == [
        {"uri": "b", "stage": "embed", "code": "non_finite"}
    ]


def test_a_unit__limits_are_applied(table: Table) -> None:
    rows, rejects = through(table, Images({"a": colour(1)}), MeanColour(), Limits(max_pixels=255))
    assert rejects["code"].to_pylist() == ["too_large"]
    assert len(rows) == 0


def test_read_unit__pixels_are_those_of_the_preset(table: Table) -> None:
    data = samples.jpeg(3)
    source = Images({"a": b"", "b": data})
    block = read_unit(table, plan(table, source), source, PRESET, Limits())
    pixels = np.frombuffer(block["pixels"][1].as_py(), np.uint8).reshape(8, 8, 3)
    np.testing.assert_array_equal(pixels, cv2.resize(cv2.imdecode(np.frombuffer(data, np.uint8), 1), (8, 8)))
    assert block["pixels"][0].as_py() == b""


def test_a_unit__whose_plan_can_not_be_read_stays_pending_and_says_why(table: Table) -> None:
    source = Images({"a": colour(1), "b": colour(2)})
    unit = plan(table, source)
    Path(table.plan_uri(0)).write_bytes(b"damaged")
    (block,) = read_block(unit, table, source, PRESET, Limits())
    block = embed_unit(MeanColour(), block, PRESET, SCHEMA.field("embedding").type, lambda _: None)
    report = commit_block(block, table, finish, {})
    assert (report.unit, report.num_images, report.created) == (0, 2, False)
    assert "Unit 0 can't be read now: ArrowInvalid" in str(report.trouble)


def test_a_unit__a_part_of_it_is_not_committed_as_the_whole(table: Table) -> None:
    source = Images({"a": colour(1), "b": colour(2)})
    block = read_unit(table, plan(table, source), source, PRESET, Limits())
    block = embed_unit(MeanColour(), block.slice(1, 1), PRESET, SCHEMA.field("embedding").type, lambda _: None)
    report = commit_block(block, table, finish, {})
    assert "promises 2 images, got 1 + 0" in str(report.trouble)
    assert not Path(table.uri, "data").exists()


def test_a_unit__no_memory_for_an_image_keeps_it_pending(table: Table) -> None:
    with pytest.raises(TimeoutError, match="images can't be read now: MemoryError"):
        through(table, Images({"a": MemoryError("none left")}), MeanColour())


def test_a_unit__without_an_engine_stays_pending(table: Table) -> None:
    source = Images({"a": colour(1)})
    for error, hopeless in ((ConfigError("no such precision"), True), (RuntimeError("busy"), False)):
        block = read_unit(table, plan(table, source), source, PRESET, Limits())
        block = give_up(block, SCHEMA.field("embedding").type, error)
        report = commit_block(block, table, finish, {})
        assert report.hopeless == hopeless
        assert str(error) in str(report.trouble)
    assert not Path(table.uri, "data").exists()


def test_a_unit__extra_columns_keep_their_types_and_names(table: Table) -> None:
    extras = pa.table(
        {
            "price": pa.array([1, None, 3], pa.int64()),
            "plan": pa.array(["x", "y", "z"]),  # names that the block uses itself
            "when": pa.array([1, 2, 3], pa.timestamp("ns")),
            "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
        }
    )
    rows, _ = through(table, Images({"a": colour(1), "b": b"", "c": colour(2)}, extras), MeanColour())
    assert rows.schema.remove_metadata() == pa.schema([*SCHEMA, *extras.schema])
    assert rows.select(extras.column_names).equals(extras.take([0, 2]))


def test_to_schema__a_file_has_the_columns_of_its_plan_and_types_must_agree() -> None:
    rows = SCHEMA.empty_table().append_column("price", pa.array([], pa.int64()))
    known = {"p": pa.schema([("name", pa.string()), ("price", pa.int64())]), "q": pa.schema([])}
    assert to_schema(rows, "p", SCHEMA, known).column_names == [*SCHEMA.names, "name", "price"]
    assert to_schema(rows, "q", SCHEMA, known).column_names == SCHEMA.names
    with pytest.raises(ConfigError, match="'price' is string in the table, but int64 in the source"):
        to_schema(rows, "p", SCHEMA, {"p": pa.schema([("price", pa.string())])})


def test_a_unit__a_container_holds_what_was_read(table: Table) -> None:
    extras = pa.table({"caption": ["x", "y"]})
    rows, rejects = through(table, Shard({"s#a": colour(1), "s#b": b""}, extras), MeanColour())
    assert (rows["uri"].to_pylist(), rejects["uri"].to_pylist()) == (["s#a"], ["s#b"])
    assert rows["caption"].to_pylist() == ["x"]


def test_a_unit__an_empty_container_commits_empty_files(table: Table) -> None:
    rows, rejects = through(table, Shard({}), MeanColour())
    assert (len(rows), len(rejects)) == (0, 0)


class Counting(MeanColour):
    def __init__(self) -> None:
        super().__init__(batch_size=1)
        self.num_images = 0

    def embed_batch(self, pixels: Pixels) -> np.ndarray:
        self.num_images += len(pixels)
        return super().embed_batch(pixels)


def test_a_unit__the_same_bytes_are_embedded_once(table: Table) -> None:
    engine = Counting()
    images = {"a": colour(1), "b": b"no image", "c": colour(1), "d": b"no image", "e": colour(2), "f": colour(1)}
    rows, rejects = through(table, Images(images), engine)
    assert engine.num_images == 2
    assert rows.select(["uri", "embedding", "width"]).to_pylist() == [
        {"uri": uri, "embedding": [value] * 3, "width": 16} for uri, value in (("a", 1), ("c", 1), ("e", 2), ("f", 1))
    ]
    assert rejects.select(["uri", "code"]).to_pylist() == [{"uri": uri, "code": "unsupported"} for uri in "bd"]
    assert json.loads(rows.schema.metadata[b"vep"])["reused"] == 2


def test_a_unit__known_bytes_are_not_embedded_again(table: Table) -> None:
    engine, known = Counting(), Known({colour(1): [7, 8, 9]})
    rows, _ = through(table, Images({"a": colour(1), "b": colour(2), "c": colour(1)}), engine, known=known)
    assert engine.num_images == 1
    assert rows["embedding"].to_pylist() == [[7, 8, 9], [2, 2, 2], [7, 8, 9]]
    assert rows["width"].to_pylist() == [7, 16, 7]
    assert len(known.asked) == 2
    assert json.loads(rows.schema.metadata[b"vep"])["reused"] == 2


def test_a_unit__is_looked_up_by_as_much_as_may_be_held_at_once(table: Table) -> None:
    class Asked(Known):
        def find(self, sha256: Sequence[str]) -> list[Embedded | None]:
            at_once.append(len(sha256))
            return super().find(sha256)

    at_once: list[int] = []
    long = [b"%d" % number + bytes(3 * 2**20) for number in range(3)]  # rejects, which are looked up all the same
    images: dict[str, bytes | Exception] = {f"{number:02}": colour(number) for number in range(61)}
    images |= {f"long-{number}": data for number, data in enumerate(long)}
    rows, rejects = through(table, Images(images), MeanColour(), known=Asked({}))
    assert (len(rows), len(rejects)) == (61, 3)
    assert at_once == [63, 1]  # until there are 4 MiB


class Decoding(MeanColour):
    """An engine that decodes, too, and finds what it can't decode no better than the CPU does."""

    def embed_files(self, batches: Iterable[Sequence[bytes]]) -> Iterator[tuple[np.ndarray, dict[int, ImageReject]]]:
        for files in batches:
            assert len(files) <= self.info.batch_size
            vectors, rejects = np.full((len(files), 3), np.nan, np.float32), {}
            for place, data in enumerate(files):
                try:
                    vectors[place] = decode_and_crop(PRESET, Limits(), data)[0].mean((0, 1))
                except ImageReject as reject:
                    rejects[place] = reject
            yield vectors, rejects


def mixed_images() -> dict[str, bytes | Exception]:
    return {
        "a": samples.jpeg(0),
        "b": colour(20),
        "c": b"",
        "d": samples.jpeg(1, 50, 60),
        "e": samples.odd_images()["exif6.jpg"],
        "f": samples.jpeg(0),
        "g": samples.jpeg(2)[:300],
        "h": colour(20),
        "i": samples.jpeg(3),
    }


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_a_unit__files_for_the_gpu_and_pixels_mix(table: Table, batch_size: int) -> None:
    source = Images(mixed_images())
    unit = plan(table, source)
    on_cpu, on_gpu = (read_unit(table, unit, source, PRESET, Limits(), for_gpu=for_gpu) for for_gpu in (False, True))
    assert on_cpu["encoded"].null_count == len(on_cpu)
    left = [row["uri"] for row in on_gpu.select(["uri", "encoded"]).to_pylist() if row["encoded"] is not None]
    assert left == ["a", "d", "i"]  # a usual JPEG, once; f is a's copy
    for name in ("uri", "sha256", "width", "height", "code", "copy_of"):
        assert on_gpu[name].equals(on_cpu[name]), name
    results = []
    for block, engine in ((on_cpu, MeanColour(batch_size)), (on_gpu, Decoding(batch_size))):
        counted: list[int] = []
        embedded = embed_unit(engine, block, PRESET, SCHEMA.field("embedding").type, counted.append)
        assert sum(counted) == len(block)
        results.append(embedded.drop_columns(["costs"]))
    assert results[1].equals(results[0])


def test_a_unit__what_the_gpu_rejects_is_rejected_wherever_it_occurs(table: Table) -> None:
    class Rejecting(Decoding):
        def embed_files(
            self, batches: Iterable[Sequence[bytes]]
        ) -> Iterator[tuple[np.ndarray, dict[int, ImageReject]]]:
            bad = ImageReject("decode", RejectCode.UNDECODABLE, "nobody can")
            for files in batches:
                vectors = np.ones((len(files), 3), np.float32)
                rejects = {place: bad for place, data in enumerate(files) if data == samples.jpeg(1)}
                vectors[list(rejects)] = np.nan
                yield vectors, rejects

    source = Images({"a": samples.jpeg(0), "b": samples.jpeg(1), "c": colour(2), "d": samples.jpeg(1)})
    unit = plan(table, source)
    block = read_unit(table, unit, source, PRESET, Limits(), for_gpu=True)
    block = embed_unit(Rejecting(1), block, PRESET, SCHEMA.field("embedding").type, lambda _: None)
    report = commit_block(block, table, finish, {})
    assert (report.embedded, report.rejected, report.reused, report.trouble) == (2, 2, 0, None)
    rejects = pq.read_table(table.rejects_uri(unit.name)).select(["uri", "stage", "code", "message"]).to_pylist()
    assert rejects == [
        {"uri": uri, "stage": "decode", "code": "undecodable", "message": "nobody can"} for uri in ("b", "d")
    ]


def test_a_unit__that_is_read_alone_is_decoded_by_no_gpu(table: Table) -> None:
    source = Images({"a": samples.jpeg(0)})
    unit = plan(table, source)
    for alone, left in (((), 0), ((unit.name,), 1)):
        (block,) = read_block(unit, table, source, PRESET, Limits(), alone=alone, for_gpu=True)
        assert block["encoded"].null_count == left


def test_embed_unit__an_engine_looks_at_the_block_itself(table: Table) -> None:
    class Looking(MeanColour):
        def embed_batch(self, pixels: Pixels) -> np.ndarray:
            looked_at.append((pixels.ctypes.data, pixels.size))
            return super().embed_batch(pixels)

    looked_at: list[tuple[int, int]] = []
    source = Images({f"{i}": colour(i) for i in range(8)})
    block = read_unit(table, plan(table, source), source, PRESET, Limits())
    embed_unit(Looking(4), block, PRESET, SCHEMA.field("embedding").type, lambda _: None)
    start, size = block["pixels"].chunk(0).buffers()[2].address, 8 * 8 * 3
    assert looked_at == [(start, 4 * size), (start + 4 * size, 4 * size)]


def test_embed_unit__units_take_turns_at_the_engine(table: Table) -> None:
    class Busy(MeanColour):
        at_work = 0

        def embed_batch(self, pixels: Pixels) -> np.ndarray:
            self.at_work += 1
            time.sleep(0.01)
            assert self.at_work == 1
            self.at_work -= 1
            return super().embed_batch(pixels)

    source = Images({f"{i}": colour(i) for i in range(8)})
    block = read_unit(table, plan(table, source), source, PRESET, Limits())
    engine, turn = Busy(1), threading.Lock()

    def embed(_: int) -> pa.Table:
        return embed_unit(engine, block, PRESET, SCHEMA.field("embedding").type, lambda _: None, turn)

    with ThreadPoolExecutor(3) as pool:
        blocks = list(pool.map(embed, range(3)))
    assert [block["trouble"][0].as_py() for block in blocks] == [None] * 3
    costs = [costs_of(block) for block in blocks]
    assert sum(cost.engine_s for cost in costs) < max(cost.embed_began + cost.embed_s for cost in costs) - min(
        cost.embed_began for cost in costs
    )


class SharedMeanColour:
    """An engine for several units at once; its batches are done when it is told so, and fail where they are black."""

    def __init__(self) -> None:
        self.info = EngineInfo("mean", "fp32", "test", 1)
        self.may_finish, self.begun = threading.Event(), threading.Semaphore(0)
        self.lanes = [ColourLane(self) for _ in range(3)]
        self._shared = SharedLanes(self.lanes)

    def embed_batches(self, batches: Iterable[Pixels]) -> Iterator[np.ndarray]:
        return self._shared.embed_batches(batches)


class ColourLane:
    def __init__(self, engine: SharedMeanColour) -> None:
        self.engine = engine
        self.pixels: Pixels | None = None

    def submit(self, pixels: Pixels) -> None:
        assert self.pixels is None
        self.pixels = pixels
        self.engine.begun.release()

    def collect(self) -> np.ndarray:
        assert self.engine.may_finish.wait(10)
        assert self.pixels is not None
        vectors, self.pixels = self.pixels.mean((1, 2)).astype(np.float32), None
        if not vectors.any():
            raise RuntimeError("out of order")
        return vectors


def test_embed_unit__units_share_an_engine_and_keep_their_rows_errors_and_time(tmp_path: Path) -> None:
    engine, busy, blocks = SharedMeanColour(), EngineTime(), []
    for name, values in (("one", [9, 0]), ("other", [7, 5, 3, 1])):
        table, source = Table(str(tmp_path / name)), Images({f"{i}": colour(value) for i, value in enumerate(values)})
        blocks.append(read_unit(table, plan(table, source), source, PRESET, Limits()))

    def embed(block: pa.Table) -> pa.Table:
        return embed_unit(engine, block, PRESET, SCHEMA.field("embedding").type, lambda _: None, None, busy)

    with ThreadPoolExecutor(2) as pool:
        units = [pool.submit(embed, blocks[0])]
        begun = [engine.begun.acquire(timeout=5) for _ in range(2)]
        units.append(pool.submit(embed, blocks[1]))
        begun.append(engine.begun.acquire(timeout=5))  # nothing is done yet
        engine.may_finish.set()
        failed, good = (unit.result(10) for unit in units)
    assert begun == [True] * 3
    assert "out of order" in failed["trouble"][0].as_py()
    assert good["trouble"][0].as_py() is None
    assert [vector[0] for vector in good["embedding"].to_pylist()] == [7, 5, 3, 1]
    costs = [costs_of(block) for block in (failed, good)]
    assert summed(costs)["engine_busy"] <= 1
    assert min(cost.engine_s for cost in costs) >= 0


def test_embed_unit__leaves_the_engine_to_others_whatever_happens(table: Table) -> None:
    engine = SharedMeanColour()
    engine.may_finish.set()
    source = Images({f"{i}": colour(i + 1) for i in range(8)})
    block = read_unit(table, plan(table, source), source, PRESET, Limits())
    kept = RuntimeError("nobody to tell")  # with all the frames that it came through

    def tell(_: int) -> None:
        raise kept

    with pytest.raises(RuntimeError, match="nobody to tell"):
        embed_unit(engine, block, PRESET, SCHEMA.field("embedding").type, tell)
    assert [lane.pixels for lane in engine.lanes] == [None] * 3
    again = embed_unit(engine, block, PRESET, SCHEMA.field("embedding").type, lambda _: None)
    assert [vector[0] for vector in again["embedding"].to_pylist()] == list(range(1, 9))
