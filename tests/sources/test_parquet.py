"""The Parquet source: files by pattern, slices, labels and splits, and files that change or vanish."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import storage
from pipeline.errors import ConfigError, RejectCode, TransientError
from pipeline.refs import REF_SCHEMA
from pipeline.sources.parquet import ParquetSource
from tests import samples
from tests.s3 import S3Server
from tests.sources.parquet_files import (
    HF_IMAGE,
    CountingStore,
    images,
    read,
    read_all,
    refs,
    reject,
    write,
    write_numbers,
)


def test_read__gives_images_labels_splits_and_their_uris(tmp_path: Path) -> None:
    columns = {"image": images(0, 1, 2), "label": ["cat", None, "dog"], "split": ["train", "val", ""], "id": [5, 6, 7]}
    path = write(tmp_path / "a#1 ü.parquet", columns)
    source = ParquetSource(str(path))
    (ref,) = refs(source)
    data, rows = read(source, ref)
    assert data == [samples.jpeg(seed) for seed in range(3)]
    assert rows.to_pydict() == {
        "uri": [f"{path}#row=0", f"{path}#row=1", f"{path}#row=2"],
        "label": ["cat", None, "dog"],
        "split": ["train", "validation", None],
        "id": [5, 6, 7],
    }
    assert source.identity == f"parquet {path}"


def test_refs__are_slices_of_single_files_from_the_footers_alone(tmp_path: Path) -> None:
    write_numbers(tmp_path / "b" / "1.parquet", 7)
    write(tmp_path / "a.parquet", {"image": pa.nulls(0)})  # no rows, no types
    write_numbers(tmp_path / "c.parquet", 3)
    samples.write(tmp_path / "README.md", b"text")
    store = CountingStore()
    source = ParquetSource(str(tmp_path), store)
    (table,) = source.refs(3)
    assert table.schema == REF_SCHEMA
    one, two = str(tmp_path / "b" / "1.parquet"), str(tmp_path / "c.parquet")
    assert table["uri"].to_pylist() == [f"{one}#rows=0+", f"{one}#rows=3+", f"{one}#rows=6+", f"{two}#rows=0+"]
    assert table["num_images"].to_pylist() == [3, 3, 1, 3]
    versions = {uri: store.info(uri) for uri in (one, two)}
    assert [versions[uri.partition("#")[0]].version for uri in table["uri"].to_pylist()] == table["version"].to_pylist()
    assert table["label"].null_count == table["split"].null_count == 4
    assert source.skipped == {".md": 1}
    assert store.opened == 5  # three footers; and those up to the first with rows, to decide on the columns


def test_refs__tables_are_small(tmp_path: Path) -> None:
    write_numbers(tmp_path / "a.parquet", 2500, row_group_size=1000, image_bytes=1)
    assert [len(table) for table in ParquetSource(str(tmp_path)).refs(1)] == [1000, 1000, 500]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("train-0.parquet", ["train-0"]),
        ("{train,test}-{1..0}.parquet", ["test-0", "test-1", "train-0", "train-1"]),
        ("{deep,train-0.parquet}", ["x", "train-0"]),
        ("odd[1]{2}.parquet", ["odd[1]{2}"]),
        ("train-*", ["train-0", "train-1"]),
        (".", ["x", "odd[1]{2}", "test-0", "test-1", "train-0", "train-1"]),
    ],
)
def test_pattern__names_files_in_order_and_once(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    for name in ("train-0", "train-1", "test-0", "test-1", "deep/er/x", "odd[1]{2}"):
        write_numbers(tmp_path / f"{name}.parquet", 1)
    samples.write(tmp_path / "train-notes.txt", b"text")
    uris = [ref["uri"][0].as_py() for ref in refs(ParquetSource(str(tmp_path / pattern)))]
    assert [Path(uri.partition("#rows")[0]).stem for uri in uris] == expected


@pytest.mark.parametrize("pattern", ["nowhere", "no*.parquet", "{a,b}.parquet", "", "a{.parquet"])
def test_columns__of_nothing_is_an_error(tmp_path: Path, pattern: str) -> None:
    if pattern.startswith("{"):
        write_numbers(tmp_path / "a.parquet", 1)
    with pytest.raises(ConfigError, match=r"Expected (Parquet files at .*found none|braces as in)"):
        list(ParquetSource(str(tmp_path / pattern)).refs(8))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train-00000-of-00010.parquet", "train"),
        ("trainer.parquet", None),
        ("val/0000.parquet", "validation"),
    ],
)
def test_split__by_the_name_of_the_file_or_its_folder(tmp_path: Path, name: str, expected: str | None) -> None:
    root = tmp_path / "x"
    write_numbers(root / name, 1)
    assert read_all(ParquetSource(str(root)))["split"].to_pylist() == [expected]
    assert read_all(ParquetSource(str(root), split_from="none"))["split"].to_pylist() == [None]


def test_split__by_a_column(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", {"image": images(0, 1), "split": ["dev", "odd"], "fold": [1, None]})
    assert read_all(ParquetSource(str(path)))["split"].to_pylist() == ["validation", "odd"]
    assert read_all(ParquetSource(str(path), split_from="column:fold"))["split"].to_pylist() == ["1", None]


@pytest.mark.parametrize("data", [b"", b"PAR1 this is no Parquet file PAR1", b"text"])
def test_refs__a_file_without_a_footer_is_an_error(tmp_path: Path, data: bytes) -> None:
    write_numbers(tmp_path / "a.parquet", 1)
    bad = samples.write(tmp_path / "b.parquet", data)
    with pytest.raises(ConfigError, match=f"Expected a Parquet file at {bad}, but its footer can't be read"):
        refs(ParquetSource(str(tmp_path)))


def test_read__rows_without_an_image_are_rejects(tmp_path: Path) -> None:
    values = [
        {"bytes": None, "path": "s3://u:secret@b/a.jpg"},
        None,
        {"bytes": None, "path": None},
        {"bytes": b"", "path": "e"},
    ]
    source = ParquetSource(
        str(write(tmp_path / "a.parquet", {"image": pa.array(values, HF_IMAGE), "id": [0, 1, 2, 3]}))
    )
    (ref,) = refs(source)
    data, rows = read(source, ref)
    assert [reject(image).code for image in data[:3]] == [RejectCode.MISSING] * 3
    assert reject(data[0]).message == "The row has no bytes (path s3://b/a.jpg)."
    assert data[3] == b""  # the decoder's to reject
    assert rows["id"].to_pylist() == [0, 1, 2, 3]
    plain = ParquetSource(str(write(tmp_path / "b.parquet", {"image": pa.array([None, b"x"], pa.binary())})))
    data, _ = read(plain, refs(plain)[0])
    assert reject(data[0]).code is RejectCode.MISSING
    assert data[1] == b"x"


def test_read__a_long_image_is_cut(tmp_path: Path) -> None:
    source = ParquetSource(str(write_numbers(tmp_path / "a.parquet", 1, image_bytes=100)))
    data, _ = read(source, refs(source)[0], max_bytes=10)
    assert [len(image) for image in data if isinstance(image, bytes)] == [11]


def test_read__a_vanished_file_is_rejects_but_a_vanished_folder_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "root" / "a.parquet", {"image": images(0, 1), "id": [0, 1]})
    source = ParquetSource(str(tmp_path / "root"))
    (ref,) = refs(source)
    other = path.rename(path.with_name("b.parquet"))
    data, rows = read(source, ref)
    assert [reject(image).code for image in data] == [RejectCode.MISSING] * 2
    assert rows.to_pylist() == [{"uri": f"{path}#row={i}", "label": None, "split": None, "id": None} for i in (0, 1)]
    other.unlink()
    with pytest.raises(TransientError, match="root is gone or empty"):  # a mount point without its mount
        read(source, ref)
    path.parent.rmdir()
    with pytest.raises(TransientError, match="root is gone"):
        read(source, ref)


def test_read__a_file_that_grew_gives_what_was_promised_and_one_that_shrank_what_is_there(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "a.parquet", 10)
    source = ParquetSource(str(path))
    first, second = refs(source, 8)
    write_numbers(path, 30)
    assert read(source, first)[1]["number"].to_pylist() == list(range(8))
    assert read(source, second)[1]["number"].to_pylist() == [8, 9]
    write_numbers(path, 5)
    fresh = pickle.loads(pickle.dumps(source))
    assert read(fresh, first)[1]["number"].to_pylist() == list(range(5))
    assert read(fresh, second)[0] == []
    assert read(fresh, second)[1].schema == read(fresh, first)[1].schema
    assert [ref["num_images"][0].as_py() for ref in refs(source, 8)] == [5]


def test_source__travels_with_nothing_open(tmp_path: Path) -> None:
    source = ParquetSource(str(write_numbers(tmp_path / "a.parquet", 20)))
    first, second = refs(source, 10)
    read(source, first)
    copy = pickle.loads(pickle.dumps(source))
    assert read(copy, second)[1].equals(read(source, second)[1])
    assert copy.columns() == source.columns()


def test_source__lists_names_that_are_no_utf8(tmp_path: Path) -> None:
    write_numbers(tmp_path / "a.parquet", 1)
    odd = tmp_path / os.fsdecode(b"caf\xe9.parquet")
    shutil.move(tmp_path / "a.parquet", odd)
    for pattern in (str(odd), str(tmp_path), str(tmp_path / "*.parquet")):
        assert read_all(ParquetSource(pattern))["uri"].to_pylist() == [f"file://{tmp_path}/caf%E9.parquet#row=0"]


@pytest.mark.s3
def test_source__of_a_bucket(tmp_path: Path, s3_server: S3Server) -> None:
    for name in ("train-0", "train-1", "deep/er/test"):
        write_numbers(tmp_path / f"{name}.parquet", 50, row_group_size=20)
    uri = s3_server.make_bucket("parquet")
    s3_server.upload(tmp_path, f"{uri}/a b")
    store = storage.store_for(uri, s3_server.options)
    for pattern, splits in (
        ("", ["test", "train", "train"]),
        ("/train-{0,1}.parquet", ["train"] * 2),
        ("/*1*", ["train"]),
    ):
        source = ParquetSource(f"{uri}/a b{pattern}", store)
        rows = read_all(pickle.loads(pickle.dumps(source)), 30)
        assert rows["number"].to_pylist() == list(range(50)) * len(splits)
        assert rows["split"].to_pylist() == [split for split in splits for _ in range(50)]
    ref, *_ = refs(source)
    assert ref["uri"].to_pylist() == [f"{uri}/a b/train-1.parquet#rows=0+"]
    s3_server.client().delete_object(Bucket="parquet", Key="a b/train-1.parquet")
    assert [reject(image).code for image in read(source, ref)[0]] == [RejectCode.MISSING] * 50
    with pytest.raises(ConfigError, match="found none"):
        refs(source)
