"""How Parquet rows are read: which bytes, how many at a time, and what becomes of damage and trouble."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RejectCode, TransientError
from pipeline.sources.parquet import ParquetSource
from tests.sources.parquet_files import (
    CountingStore,
    read,
    refs,
    reject,
    write_numbers,
)


@pytest.mark.parametrize("row_group_size", [1, 3, 4, 50, 1000])
@pytest.mark.parametrize("unit_size", [1, 7, 40, 64, 2000])
@pytest.mark.parametrize("backwards", [False, True])
def test_read__every_row_once_whatever_the_row_groups(
    tmp_path: Path, row_group_size: int, unit_size: int, backwards: bool
) -> None:
    source = ParquetSource(str(write_numbers(tmp_path / "a.parquet", 130, row_group_size, 10)))
    found = {}
    for ref in refs(source, unit_size)[:: -1 if backwards else 1]:
        data, rows = read(source, ref)
        for uri, number, image in zip(rows["uri"].to_pylist(), rows["number"].to_pylist(), data, strict=True):
            assert isinstance(image, bytes)
            assert uri.endswith(f"#row={number}")
            found[number] = int.from_bytes(image[:4], "big")
    assert found == {number: number for number in range(130)}


def test_read__a_slice_that_follows_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    store = CountingStore()
    path = write_numbers(tmp_path / "a.parquet", 100, row_group_size=100, image_bytes=200_000)
    source = ParquetSource(str(path), store)
    slices = refs(source, 25)
    fresh, store.opened, store.reads = pickle.dumps(source), 0, []
    numbers = [read(source, ref, 4)[1]["number"].to_pylist() for ref in slices]
    assert numbers == [list(range(start, start + 25)) for start in (0, 25, 50, 75)]
    assert store.opened == 1
    assert sum(size for _, size in store.reads) < 1.1 * path.stat().st_size
    alone = pickle.loads(fresh)
    read(alone, slices[3])
    assert sum(size for _, size in alone._store.reads) > 0.7 * path.stat().st_size  # it had to pass the rows before


def test_read__every_other_slice_of_a_row_group_reads_it_once(tmp_path: Path) -> None:
    """As two processes do that share the slices of a large row group between them."""
    path = write_numbers(tmp_path / "a.parquet", 400, row_group_size=400, image_bytes=10_000)
    store = CountingStore()
    source = ParquetSource(str(path), store)
    slices = refs(source, 50)
    store.reads = []
    for ref in slices[::2]:
        rows = read(pickle.loads(pickle.dumps(source)), ref)[1]
        start = int(ref["uri"][0].as_py().rpartition("=")[2].removesuffix("+"))
        assert rows["number"].to_pylist() == list(range(start, start + 50))
    total = sum(size for _, size in in_this_process(source)._store.reads)
    assert total < 1.2 * path.stat().st_size


def in_this_process(source: ParquetSource) -> Any:
    """Return the source that this process holds for one that it was sent."""
    return pickle.loads(pickle.dumps(source))


def test_read__row_groups_that_are_not_needed_stay_unread(tmp_path: Path) -> None:
    store = CountingStore()
    path = write_numbers(tmp_path / "a.parquet", 400, row_group_size=4, image_bytes=100_000)
    source = ParquetSource(str(path), store)
    ref = refs(source, 4)[50]
    store.reads = []
    read(source, ref)
    assert sum(size for _, size in store.reads) < 0.1 * path.stat().st_size


def test_read__few_images_are_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none", write_batch_size=4) as writer:
        writer.write_table(pa.table({"image": [os.urandom(500_000) for _ in range(200)]}, schema=schema))
    store = CountingStore()
    source = ParquetSource(str(path), store)
    (ref,) = refs(source)
    before, given, store.reads = pa.total_allocated_bytes(), 0, []
    for image in source.read(ref, 10**6).images():
        assert isinstance(image.data, bytes)
        given += len(image.data)
        # Of 100 MB in one row group: what Arrow holds, and what was read of the file ahead of the images.
        assert pa.total_allocated_bytes() - before < 50 * 2**20
        assert sum(size for _, size in store.reads) - given < 50 * 2**20


def test_read__two_readings_at_a_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    source = ParquetSource(str(write_numbers(tmp_path / "a.parquet", 300, 40, image_bytes=10**5)))
    first, second, third = refs(source, 100)
    read(source, first)
    one, other = source.read(second, 4).images(), source.read(second, 4).images()
    pairs = [(a.uri, a.data, b.uri, b.data) for a, b in zip(one, other, strict=True)]
    assert all(pair[:2] == pair[2:] for pair in pairs)
    assert [int.from_bytes(pair[1][:4], "big") for pair in pairs if isinstance(pair[1], bytes)] == list(range(100, 200))
    assert read(source, third)[1]["number"].to_pylist() == list(range(200, 300))


def test_read__a_reading_that_is_given_up_leaves_nothing_behind(tmp_path: Path) -> None:
    source = ParquetSource(str(write_numbers(tmp_path / "a.parquet", 90, 90)))
    first, second, _ = refs(source, 30)
    reading = source.read(first, 4)
    given = reading.images()
    next(given), next(given)
    given.close()  # type: ignore[attr-defined]
    assert reading.rows()["number"].to_pylist() == [0, 1]
    assert read(source, second)[1]["number"].to_pylist() == list(range(30, 60))


def damage(path: Path) -> None:
    """Overwrite the first pages of a Parquet file, without a change of its size or time."""
    status, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * 2000 + data[2004:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_read__what_a_damaged_file_can_not_give_is_rejects(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "a.parquet", 40, row_group_size=10)
    source = ParquetSource(str(path))
    slices = refs(source, 10)
    damage(path)
    data, rows = read(source, slices[0])
    assert [reject(image).code for image in data] == [RejectCode.UNDECODABLE] * 10
    assert "The Parquet file is damaged" in reject(data[0]).message
    assert rows["uri"].to_pylist() == [f"{path}#row={i}" for i in range(10)]
    assert read(source, slices[1])[1]["number"].to_pylist() == list(range(10, 20))
    os.utime(path, ns=(1, 1))  # now it may be that somebody is writing it
    with pytest.raises(TransientError, match="changed while it was read"):
        read(source, slices[0])


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), PermissionError(13, "no"), RuntimeError("client's")]
)
def test_read__trouble_with_the_storage_is_no_reject(tmp_path: Path, error: Exception) -> None:
    store = CountingStore()
    source = ParquetSource(str(write_numbers(tmp_path / "a.parquet", 40, image_bytes=10**6)), store)
    first, second = refs(source, 20)
    expected, message = (type(error), str(error)) if isinstance(error, OSError) else (OSError, "RuntimeError: client's")
    for again in (first, second):  # at its first bytes, and in the middle of the open file
        store.error = error
        with pytest.raises(expected, match=re.escape(message)):
            read(source, again)
        with pytest.raises(expected, match=re.escape(message)):
            refs(source)
        store.error = None
        refs(source)
        assert len(read(source, first)[0]) == 20
    assert read(source, second)[1]["number"].to_pylist() == list(range(20, 40))
