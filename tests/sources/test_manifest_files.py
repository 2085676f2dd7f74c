"""Manifests as files: every format with its types, large ones, and what is wrong with a file."""

from __future__ import annotations

import datetime
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.sources.manifest import ManifestSource
from tests import samples
from tests.sources.manifests import columns_of, listed, version, write


@pytest.mark.parametrize(("name", "delimiter"), [("list.csv", ","), ("list.TSV", "\t")])
def test_refs__csv(tmp_path: Path, image: Path, name: str, delimiter: str) -> None:
    lines = [
        'uri,label,split,version,width,score,good,taken,note,"x""y"',
        'a.jpg,007,val,,1,0.5,true,2024-01-02T03:04:05,"two\nlines",k',
        "",
        '"sub/../b c#1%20.jpg",,train,v1,,1,false,,,',
    ]
    path = write(tmp_path, name, "\ufeff" + "\r\n".join(lines).replace(",", delimiter))
    source = ManifestSource(path)
    assert source.identity == f"manifest {path}"
    assert source.columns() == pa.schema(
        [
            ("width", pa.int64()),
            ("score", pa.float64()),
            ("good", pa.bool_()),
            ("taken", pa.timestamp("s")),
            ("note", pa.string()),
            ('x"y', pa.string()),
        ]
    ).set(0, pa.field("source_width", pa.int64()))
    first, second = listed(source).to_pylist()
    assert list(first.values()) == [
        *(str(image), version(image), 1, "007", "validation"),
        *(1, 0.5, True, datetime.datetime(2024, 1, 2, 3, 4, 5), "two\nlines", "k"),
    ]
    path_of_second = str(tmp_path / "b c#1%20.jpg")
    assert list(second.values()) == [path_of_second, "v1", 1, None, "train", None, 1.0, False, None, None, None]


def test_refs__json_lines(tmp_path: Path, image: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image_path": "a.jpg", "label": "2024-01-01", "boxes": [[1, 2], []], "n": None},
        {"image_path": "b.jpg", "label": None, "boxes": None, "n": 3, "late": {"deep": ["x"], "at": 0.5}},
    ]
    text = "\ufeff" + json.dumps(rows[0]) + "\n\n" + json.dumps(rows[1])
    for name in ("list.jsonl", "list.ndjson"):
        source = ManifestSource(write(tmp_path, name, text))
        late = pa.struct([("deep", pa.list_(pa.string())), ("at", pa.float64())])
        schema = pa.schema([("boxes", pa.list_(pa.list_(pa.int64()))), ("n", pa.int64()), ("late", late)])
        assert source.columns() == schema
        assert [list(row.values()) for row in listed(source).to_pylist()] == [
            [str(image), version(image), 1, "2024-01-01", None, [[1, 2], []], None, None],
            [str(tmp_path / "b.jpg"), "missing", 1, None, None, None, 3, {"deep": ["x"], "at": 0.5}],
        ]


def test_refs__json_lines_whose_columns_appear_late(tmp_path: Path) -> None:
    early = [{"uri": f"{i}.jpg", "n": 1, "note": "x" * 100} for i in range(70_000)]  # more than one block of 8 MiB
    late = [{"uri": "last.jpg", "n": 0.5, "tags": ["y"], "label": "cat"}]
    path = write(tmp_path, "list.jsonl", "\n".join(map(json.dumps, [*early, *late])))
    assert os.path.getsize(path) > 8 * 2**20
    table = listed(ManifestSource(path))
    assert (len(table), table["n"].type, table["n"][0].as_py()) == (70_001, pa.float64(), 1.0)
    assert columns_of(table.slice(69_999), "label", "tags") == [(None, None), ("cat", ["y"])]


def test_refs__parquet(tmp_path: Path, image: Path) -> None:
    moment = datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc)
    content = {
        "URL": pa.array(["a.jpg", "b.jpg"]).dictionary_encode(),
        "label": pa.array([7, None], pa.int8()),
        "etag": pa.array(["e1", None]),
        "price": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
        "at": pa.array([moment, None], pa.timestamp("us", "UTC")),
        "tags": pa.array([["x", "y"], None]),
        "count": pa.array([1, None], pa.int32()),
        "maker": pa.array(["m", None]).dictionary_encode(),
        "box": pa.array([{"left": 1}, None]),
        "a.b": pa.array([1, 2]),
    }
    pq.write_table(pa.table(content), tmp_path / "list.parquet")
    source = ManifestSource(str(tmp_path / "list.parquet"))
    expected = pa.table({name: array for name, array in content.items() if name not in ("URL", "label", "etag")})
    expected = expected.set_column(4, "maker", expected["maker"].cast(pa.string()))
    assert source.columns().equals(expected.schema)
    table = listed(source)
    assert table.select(expected.column_names).equals(expected)
    assert columns_of(table, "uri", "version", "label", "split") == [
        (str(image), "e1", "7", None),
        (str(tmp_path / "b.jpg"), "missing", None, None),
    ]


def test_refs__many_rows_in_small_tables(tmp_path: Path) -> None:
    path = write(tmp_path, "list.csv", "uri,label\n" + "".join(f"s3://b/{i},{i % 7:03d}\n" for i in range(40_000)))
    tables = list(ManifestSource(path).refs(1024))
    assert [len(table) for table in tables] == [16_384, 16_384, 7_232]
    assert tables[2]["uri"][-1].as_py() == "s3://b/39999"
    assert set(tables[0]["label"].to_pylist()) == {f"00{i}" for i in range(7)}


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("list.csv", b"", "found an empty file there"),
        ("list.csv", b"\n\n", "can't be read"),
        ("list.csv", b"a.jpg,cat\nb.jpg,dog\n", r"Expected a column named uri, .* its columns are \['a.jpg', 'cat'\]"),
        ("list.csv", b"uri,a\nb.jpg,1,s3://user:geheim@b/k\n", "Row #2: Expected 2 columns, got 3: b.jpg,1,s3://b/k"),
        ("list.csv", b"uri,x,x\na.jpg,1,2\n", r"several columns named \['x'\]"),
        ("list.csv", b"uri,sha256,source_sha256\na.jpg,1,2\n", r"Columns \['sha256'\] of .* would get the names"),
        ("list.csv", b"uri\ncaf\xe9.jpg\n", "expected UTF-8"),
        ("list.csv", b"uri,note\na.jpg,caf\xe9\n", "expected UTF-8"),
        ("list.csv", b"caf\xe9\na.jpg\n", "expected UTF-8"),
        ("list.csv", "uri\na.jpg\n".encode("utf-16"), "expected UTF-8"),
        ("list.jsonl", b"\n", "Expected a column named uri"),
        ("list.jsonl", b'[{"uri": "a.jpg"}]\n', "can't be read"),
        ("list.jsonl", b'{"uri": "caf\xe9.jpg"}\n', "expected UTF-8"),
        ("list.jsonl", b'{"uri": "a.jpg", "note": "caf\xe9"}\n', "expected UTF-8"),
        ("list.jsonl", b'{"uri": "a", "n": 1}\n{"uri": "b", "n": "x"}\n', r"Column\(/n\) changed.* to one type"),
        ("list.jsonl", b'{"uri": ["a"]}\n', "Expected text or numbers in column 'uri'"),
        (
            "list.jsonl",
            b'{"uri": "a", "label": ["cat", "dog"]}\n',
            "Expected text or numbers in column 'label' .*got list<",
        ),
        ("list.parquet", b"PAR1 or not", "can't be read"),
    ],
)
def test_refs__a_manifest_that_can_not_be_read(tmp_path: Path, name: str, content: bytes, error: str) -> None:
    source = ManifestSource(str(samples.write(tmp_path / name, content)))
    with pytest.raises(ConfigError, match=error) as caught:
        listed(source)
    assert "geheim" not in str(caught.value)


def test_columns__no_manifest(tmp_path: Path) -> None:
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(ConfigError, match=r"found a folder there\. Check --source"):
        ManifestSource(str(tmp_path / "folder.parquet")).columns()
    with pytest.raises(ConfigError, match=r"found nothing there\. Check --source"):
        ManifestSource(str(tmp_path / "list.csv")).columns()


def test_refs__a_parquet_file_with_bytes_for_text(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xe9"))
    pq.write_table(pa.table({"uri": ["a.jpg"], "note": bad}), tmp_path / "list.parquet")
    with pytest.raises(ConfigError, match="expected UTF-8"):
        listed(ManifestSource(str(tmp_path / "list.parquet")))


def test_refs__a_csv_file_of_many_blocks(tmp_path: Path) -> None:
    lines = "\n" * 100  # whatever byte a block ends at, a line ends before it that ends no row
    rows = "".join(f'{i}.jpg,{i},{i},"{lines}",\n' for i in range(80_000))
    path = write(tmp_path, "list.csv", f"uri,label,size,note,late\n{rows}last.jpg,cat,unknown,,text\n")
    assert os.path.getsize(path) > 8 * 2**20
    with pytest.raises(ConfigError) as caught:
        listed(ManifestSource(path))
    assert str(caught.value) == (
        f"Manifest {path} can't be read: In column 'size': Row #80002: CSV conversion error to int64: invalid value "
        "'unknown' (the first 8 MiB decide on the types). Convert the column to one type, leave it out by "
        "--columns, or write the manifest as Parquet."
    )
    table = listed(ManifestSource(path, columns="note,late"))
    assert columns_of(table.slice(79_999), "label", "note", "late") == [("79999", lines, None), ("cat", None, "text")]


def test_manifest_source__is_told_by_its_suffix() -> None:
    with pytest.raises(ConfigError, match=r"Expected a manifest named \*\.csv, .*, got /tmp/list\.txt"):
        ManifestSource("/tmp/list.txt")
