"""Features in memory and streamed from files: each row once, with its own label."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.heads.features import Block, Features, MemoryFeatures, StreamedFeatures
from pipeline.heads.parts import Parts
from pipeline.heads.rows import read_rows_of
from pipeline.table import open_table
from tests.heads.tables import write_arrays

DIM = 3


def write(folder: str | Path, files: list[int], dtype: str = "float32") -> str:
    """Write a table whose embeddings and classes tell which row they are of."""
    count = sum(files)
    X = np.arange(count * DIM).reshape(count, DIM)
    return write_arrays(folder, X, [str(i % 5) for i in range(count)], dtype=dtype, rows_per_file=files)  # type: ignore[arg-type]


def streamed(uri: str, mask: np.ndarray, buffer_rows: int) -> StreamedFeatures:
    rows = read_rows_of(open_table(uri, {}))
    return StreamedFeatures(rows, mask, rows.label[mask].astype(np.int64), buffer_rows)


def rows_in(blocks: Iterable[Block]) -> list[int]:
    """Return which rows there are, after a look at whether each has its own values and class."""
    found: list[int] = []
    for X, y in blocks:
        assert len(X) == len(y) > 0
        numbers = (X[:, 0].astype(np.int64) // DIM).tolist()
        np.testing.assert_array_equal(X, np.asarray(numbers)[:, None] * DIM + np.arange(DIM))
        assert [number % 5 for number in numbers] == y.tolist()
        found += numbers
    return found


#: Lengths of files, which rows are of the part, rows of the buffer and of a batch.
CASES = st.lists(st.integers(0, 9), min_size=1, max_size=8).flatmap(
    lambda files: st.tuples(
        st.just(files),
        st.lists(st.booleans(), min_size=sum(files), max_size=sum(files)),
        st.integers(1, 40),
        st.integers(1, 12),
        st.sampled_from(["float32", "float16"]),
    )
)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_streamed__each_row_once_with_its_label(case: tuple[list[int], list[bool], int, int, str]) -> None:
    files, chosen, buffer_rows, batch_size, dtype = case
    if not sum(files):
        return
    mask = np.asarray(chosen, bool)
    wanted = np.flatnonzero(mask).tolist()
    with TemporaryDirectory() as folder:
        features = streamed(write(f"{folder}/t", files, dtype), mask, buffer_rows)
        assert len(features) == len(wanted)
        assert features.embedding_dim == DIM
        assert rows_in(features.blocks()) == wanted
        batches = list(features.shuffled(batch_size, seed=1))
        assert sorted(rows_in(batches)) == wanted
        assert [len(y) for _, y in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert [y.tolist() for _, y in features.shuffled(batch_size, 1)] == [y.tolist() for _, y in batches]
        loaded = features.loaded()
        assert rows_in(loaded.blocks()) == wanted
        assert loaded.X.dtype == np.dtype(dtype)
        some = features.sample(seed=2)
        assert len(set(rows_in(some.blocks()))) == len(some) == min(buffer_rows, len(wanted))
        assert set(rows_in(some.blocks())) <= set(wanted)
        keep = np.arange(len(wanted)) % 3 == 1
        part = features.only(keep)
        assert len(part) == keep.sum()
        assert rows_in(part.blocks()) == wanted[1::3]
        assert rows_in(part.only(np.arange(len(part)) % 2 == 0).blocks()) == wanted[1::3][::2]
        assert rows_in(features.blocks()) == wanted  # as before


@given(st.integers(0, 40), st.integers(1, 12))
def test_memory__each_row_once_with_its_label(count: int, batch_size: int) -> None:
    features = MemoryFeatures(np.arange(count * DIM, dtype=np.float32).reshape(count, DIM), np.arange(count) % 5)
    wanted = list(range(count))
    assert rows_in(features.blocks()) == wanted
    batches = list(features.shuffled(batch_size, seed=1))
    assert sorted(rows_in(batches)) == wanted
    assert [len(y) for _, y in batches[:-1]] == [batch_size] * (len(batches) - 1)
    keep = np.arange(count) % 3 == 1
    assert rows_in(features.only(keep).blocks()) == wanted[1::3]


def test_blocks__of_memory_are_small() -> None:
    features = MemoryFeatures(np.zeros((20_000, 1), np.float32), np.arange(20_000))
    blocks = list(features.blocks())
    assert [len(y) for _, y in blocks] == [*9 * [2048], 1568]
    np.testing.assert_array_equal(np.concatenate([y for _, y in blocks]), features.y)


@pytest.mark.parametrize("buffer_rows", [10, 1000])
def test_shuffled__mixes_rows_and_other_seeds_mix_otherwise(tmp_path: Path, buffer_rows: int) -> None:
    features = streamed(write(tmp_path, [10] * 20), np.ones(200, bool), buffer_rows)
    for one in (features, features.loaded()):
        orders = [rows_in(one.shuffled(16, seed)) for seed in (0, 1)]
        assert orders[0] != orders[1]
        for order in orders:
            # Of rows in a random order, hardly any follows its predecessor, and the first half is from everywhere.
            assert sum(after - before == 1 for before, after in pairwise(order)) < 30
            assert 50 < np.mean(order[:100]) < 150


def test_shuffled__a_large_buffer_mixes_across_files(tmp_path: Path) -> None:
    features = streamed(write(tmp_path, [10] * 20), np.ones(200, bool), 1000)
    first = rows_in(features.shuffled(100, seed=0))[:100]
    assert len({row // 10 for row in first}) == 20


def parts_of(uri: str) -> Parts:
    rows = read_rows_of(open_table(uri, {}))
    masks = {"train": np.arange(len(rows)) % 2 == 0, "test": np.arange(len(rows)) % 4 == 1}
    return Parts(rows, rows.names, rows.names, masks, ())


def kinds(parts: Parts, memory_bytes: int) -> dict[str, type[Features]]:
    return {name: type(parts.features(name, memory_bytes)) for name in ("train", "validation", "test")}


@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("float16", 2)])
def test_features_of_parts__in_memory_where_all_parts_fit(tmp_path: Path, dtype: str, itemsize: int) -> None:
    parts = parts_of(write(tmp_path, [30, 30, 30, 10], dtype))
    assert parts.stored_bytes == 75 * DIM * itemsize
    enough = int(parts.stored_bytes * (1 + 4 / itemsize) / 0.9) + 1  # and as float32
    assert set(kinds(parts, enough).values()) == {MemoryFeatures}
    few = kinds(parts, enough - 10)
    assert few == {"train": StreamedFeatures, "validation": MemoryFeatures, "test": StreamedFeatures}
    for memory_bytes in (1, enough):
        assert rows_in(parts.features("train", memory_bytes).blocks()) == list(range(0, 100, 2))
        assert rows_in(parts.features("test", memory_bytes).blocks()) == list(range(1, 100, 4))
        assert len(parts.features("validation", memory_bytes)) == 0
        assert list(parts.features("validation", memory_bytes).blocks()) == []
