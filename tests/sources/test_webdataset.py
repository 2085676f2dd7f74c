"""The WebDataset source: which shards there are, which columns they add, and shards that vanish."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import ConfigError, TransientError
from pipeline.refs import REF_SCHEMA
from pipeline.sources.webdataset import WebDatasetSource
from pipeline.storage import LocalStore
from tests import samples
from tests.sources.tars import A, FailingStore, pack, read


def refs(source: WebDatasetSource) -> list[dict[str, Any]]:
    return [row for table in source.refs(1024) for row in table.to_pylist()]


def test_refs__one_row_a_shard_in_name_order(tmp_path: Path) -> None:
    for name in ("b/1.tar", "b/0.tgz", "a.TAR", "c.tar.gz"):
        pack(tmp_path / name)
    samples.write(tmp_path / "b" / "index.json", b"{}")
    source = WebDatasetSource(str(tmp_path))
    (table,) = source.refs(10)
    assert table.schema == REF_SCHEMA
    paths = [str(tmp_path / name) for name in ("a.TAR", "b/0.tgz", "b/1.tar", "c.tar.gz")]
    versions = [LocalStore().info(path).version for path in paths]  # type: ignore[union-attr]
    nothing = {"num_images": None, "label": None, "split": None}
    assert table.to_pylist() == [{"uri": u, "version": v, **nothing} for u, v in zip(paths, versions, strict=True)]
    assert source.skipped == {".json": 1}
    assert source.identity == f"webdataset {tmp_path}"
    assert source.containers


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("s-{000..002}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
        ("s-*", ["s-000.tar", "s-001.tar", "s-002.tar", "s-010.tar"]),
        ("{x,s-000.tar}", ["s-000.tar", "x/s-001.tar"]),
        ("odd.name", ["odd.name"]),
    ],
)
def test_refs__patterns(tmp_path: Path, pattern: str, found: list[str]) -> None:
    for name in ("s-000.tar", "s-001.tar", "s-002.tar", "s-010.tar", "x/s-001.tar", "odd.name", "s-00x"):
        pack(tmp_path / name)
    rows = refs(WebDatasetSource(f"{tmp_path}/{pattern}"))
    assert [os.path.relpath(row["uri"], tmp_path) for row in rows] == found


def test_refs__a_range_with_missing_shards_is_an_error(tmp_path: Path) -> None:
    for number in (*range(10), 12):
        pack(tmp_path / f"{number:03d}.tar", ("a.jpg", A))
    source = WebDatasetSource(f"{tmp_path}/{{000..019}}.tar")
    with pytest.raises(ConfigError, match=r"tars at all 20 places .* none at 9 of them: .*/010\.tar, .* 4 more"):
        list(source.refs(10))
    with pytest.raises(ConfigError, match="Expected tars at all 20 places .* none at 19 of them"):
        WebDatasetSource(f"{tmp_path}/{{010..029}}.tar").columns()


def test_refs__tables_are_bounded(tmp_path: Path) -> None:
    for number in range(1001):
        samples.write(tmp_path / f"{number:04d}.tar", b"")
    assert [len(table) for table in WebDatasetSource(str(tmp_path)).refs(10)] == [1000, 1]


def test_images__a_vanished_shard_is_a_reject_but_a_vanished_folder_is_not(tmp_path: Path) -> None:
    uri = str(tmp_path / "train" / "0.tar")
    with pytest.raises(TransientError, match="is gone"):
        read(uri)
    (tmp_path / "train").mkdir()
    with pytest.raises(TransientError, match="is gone or empty"):  # a mount point without its mount
        read(uri)
    samples.write(tmp_path / "train" / "1.tar", b"")
    assert read(uri) == ({"": "missing"}, [{"uri": "", "label": None, "split": "train"}])


def test_columns__fields_that_are_not_there(tmp_path: Path) -> None:
    members = (("a.jpg", A), ("a.json", b'{"x": 1}'))
    uri = pack(tmp_path / "0.tar", *members)
    for options, need in (
        ({"label_from": "cls"}, "cls"),
        ({"label_from": "json:y"}, "json:y"),
        ({"split_from": "json:z"}, "json:z"),
        ({"columns": "json,q"}, "q"),
    ):
        with pytest.raises(ConfigError, match=f"none of the first samples .* has '{need}', only the fields json"):
            WebDatasetSource(uri, **options).columns()
    assert WebDatasetSource(uri, label_from="json:x", split_from="json:x").columns().names == ["json"]
    far = pack(tmp_path / "1.tar", *((f"{i}.jpg", b"") for i in range(99)), ("98.cls", b"1"))
    assert WebDatasetSource(far, label_from="cls").columns() == pa.schema([])


def test_columns__looks_at_the_first_samples_only(tmp_path: Path) -> None:
    members = [(f"{i:02d}.{field}", b"x" * 100_000) for i in range(99) for field in ("jpg", "txt")]
    uri = pack(tmp_path / "0.tar", *members, ("00.late", b""))
    store = FailingStore(6 * 2**20, OSError("read too far"))
    assert WebDatasetSource(uri, store).columns().names == ["txt"]
    assert "late" in read(uri)[1][0]


def test_columns__nothing_to_read(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere.tar"):
        with pytest.raises(ConfigError, match=f"Expected tars at {place}, found none"):
            WebDatasetSource(str(place)).columns()
        with pytest.raises(ConfigError, match=f"Expected tars at {place}, found none"):
            refs(WebDatasetSource(str(place)))
    pack(tmp_path / "0.tar", ("a.txt", b""))
    with pytest.raises(ConfigError, match=r"members such as 000.jpg\), but .*0.tar has none"):
        WebDatasetSource(str(tmp_path)).columns()
    samples.write(tmp_path / "0.tar", b"x" * 2000)
    with pytest.raises(ConfigError, match=r"0.tar can't be read: Expected a tar, plain or"):
        WebDatasetSource(str(tmp_path)).columns()
    pack(tmp_path / "1.tar", ("a.jpg", A), ("a.txt", b""))
    assert WebDatasetSource(str(tmp_path)).columns().names == ["txt"]


def test_webdataset_source__travels(tmp_path: Path) -> None:
    pack(tmp_path / "0.tar", ("a.jpg", A), ("a.cls", b"7"))
    source = WebDatasetSource(f"{tmp_path}/{{0..0}}.tar", label_from="regex:(a)")
    list(source.refs(1))
    there = pickle.loads(pickle.dumps(source))
    (table,) = there.refs(1)
    reading = there.read(table, 10**6)
    assert [each.data for each in reading.images()] == [A]
    assert [row["label"] for row in reading.rows().to_pylist()] == ["a"]
