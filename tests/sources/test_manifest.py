"""The manifest source: every format, every row, no secrets, and what is wrong with a manifest."""

from __future__ import annotations

import datetime
import io
import json
import os
import pickle
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, ImageReject, RejectCode, TransientError
from pipeline.refs import REF_SCHEMA
from pipeline.sources import Fetched
from pipeline.sources.manifest import ManifestSource
from pipeline.storage import FileInfo, LocalStore
from tests import samples

SECRETS = ("geheim", "AKIA", "Signature=", "user:")


def listed(source: ManifestSource) -> pa.Table:
    tables = list(source.refs(1024))
    for table in tables:
        table.validate(full=True)
        assert table.schema == pa.schema([*REF_SCHEMA, *source.columns()])
    return pa.concat_tables(tables) if tables else pa.schema([*REF_SCHEMA, *source.columns()]).empty_table()


def write(folder: Path, name: str, text: str) -> str:
    return str(samples.write(folder / name, text.encode()))


def version(path: Path) -> str:
    return f"{path.stat().st_size}-{path.stat().st_mtime_ns}"


def columns_of(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def verdicts(source: ManifestSource) -> list[tuple[str, str]]:
    """Return each row's URI, and the code of its verdict or its version."""
    rows = columns_of(listed(source), "uri", "version")
    return [(uri, text.split(":")[1] if text.startswith("reject:") else text) for uri, text in rows]


def images(source: ManifestSource, max_bytes: int = 100) -> list[tuple[str, bytes | RejectCode]]:
    reading = source.read(listed(source), max_bytes)
    return [(found.uri, outcome(found)) for found in reading.images()]


def outcome(fetched: Fetched) -> bytes | RejectCode:
    if isinstance(fetched.data, ImageReject):
        assert fetched.data.stage == "read"
        return fetched.data.code
    return fetched.data


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return samples.write(tmp_path / "a.jpg", b"bytes of a")


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
    ("entry", "uri"),
    [
        ("a.jpg", "/lists/a.jpg"),
        ("../x/./a b.jpg", "/x/a b.jpg"),
        ("/abs/../a.jpg", "/a.jpg"),
        ("a\\b:c?d#e%20.jpg", "/lists/a\\b:c?d#e%20.jpg"),
        ("file:///d/a%20b.jpg", "/d/a b.jpg"),
        ("FILE://localhost/d/a.jpg", "/d/a.jpg"),
        ("file:///d/%ff.jpg", "file:///d/%FF.jpg"),
        ("s3://b/k?v=1#2 3/../x", "s3://b/k?v=1#2 3/../x"),
        (" s3a://b/k/ ", "s3://b/k"),
        ("gcs://b/k@2x.png", "gs://b/k@2x.png"),
        ("abfs://c/k", "az://c/k"),
        ("HTTPS://Example.com/a/", "https://Example.com/a/"),
    ],
)
def test_refs__where_an_entry_leads(tmp_path: Path, entry: str, uri: str) -> None:
    root = tmp_path / "lists"
    root.mkdir()
    path = write(tmp_path, "list.jsonl", json.dumps({"key": entry, "version": "1"}))
    expected = uri.replace("/lists", str(root)) if uri.startswith("/lists") else uri
    expected = str(tmp_path / "x/a b.jpg") if uri == "/x/a b.jpg" else expected
    assert verdicts(ManifestSource(path, root=str(root), allow_http=True)) == [(expected, "1")]


@pytest.mark.parametrize(
    ("entry", "uri", "code"),
    [
        ("a.jpg", "s3://bucket/lists/deep/a.jpg", ""),
        ("./a//b.jpg", "s3://bucket/lists/deep/a/b.jpg", ""),
        ("../a.jpg", "s3://bucket/lists/a.jpg", ""),
        ("../../a.jpg", "s3://bucket/a.jpg", ""),
        ("../../../other/a.jpg", "s3://bucket/lists/deep/../../../other/a.jpg", "unsafe"),
        ("../../../../a.jpg", "s3://bucket/lists/deep/../../../../a.jpg", "unsafe"),
        ("/local/a.jpg", "/local/a.jpg", "missing"),
    ],
)
def test_refs__relative_to_a_bucket(tmp_path: Path, entry: str, uri: str, code: str) -> None:
    path = write(tmp_path, "list.csv", f"uri\n{entry}\n")
    assert verdicts(ManifestSource(path, root="s3://bucket/lists/deep/")) == [(uri, code)]


def test_refs__rows_that_can_never_be_images(tmp_path: Path, image: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    entries = [
        None,
        "",
        " ",
        "http://example.com/a.jpg",
        "ftp://example.com/a.jpg",
        "data:image/png;base64,geheim",
        "https:/example.com/geheim.jpg",
        "file://host/a.jpg",
        "s3://bucket",
        "s3:///key",
        "s3://bucket/" + "k" * 1025,
        "x" * 300,
        "nul\0.jpg",
        ".",
        "pipe.jpg",
        "a.jpg",
    ]
    path = write(tmp_path, "list.jsonl", "\n".join(json.dumps({"uri": entry}) for entry in entries))
    assert verdicts(ManifestSource(path)) == [
        (f"{path}#row-1", "missing"),
        (f"{path}#row-2", "missing"),
        (f"{path}#row-3", "missing"),
        ("http://example.com/a.jpg", "refused"),
        ("ftp://example.com/a.jpg", "refused"),
        ("data:…#row-6", "refused"),
        ("https:…#row-7", "refused"),
        ("file:…#row-8", "refused"),
        ("s3://bucket", "missing"),
        ("s3:///key", "missing"),
        ("s3://bucket/" + "k" * 1025, "missing"),
        (str(tmp_path / ("x" * 300)), "missing"),
        (f"{path}#row-13", "missing"),
        (str(tmp_path), "missing"),
        (str(tmp_path / "pipe.jpg"), "missing"),
        (str(image), version(image)),
    ]
    codes = {"missing": RejectCode.MISSING, "refused": RejectCode.REFUSED}
    assert images(ManifestSource(path)) == [
        *((uri, codes[code]) for uri, code in verdicts(ManifestSource(path))[:-1]),
        (str(image), b"bytes of a"),
    ]


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("s3://bucket/a.jpg?X-Amz-Credential=AKIA&X-Amz-Signature=geheim", "s3://bucket/a.jpg"),
        ("https://bucket.example/a.jpg?X-Amz-Signature=geheim", "https://bucket.example/a.jpg"),
        ("https://example.com/a.jpg?geheim", "https://example.com/a.jpg"),
        ("https://example.com/a.jpg#geheim", "https://example.com/a.jpg"),
        ("https://user:geheim@example.com/a.jpg", "https://example.com/a.jpg"),
        ("  https://user:geheim@example.com/a.jpg", "https://example.com/a.jpg"),
        ("s3://AKIA:geheim@bucket/a.jpg", "s3://bucket/a.jpg"),
        ("ftp://user:geheim@example.com/a.jpg", "ftp://example.com/a.jpg"),
        ("see https://user:geheim@example.com/a.jpg", "see https://example.com/a.jpg"),
    ],
)
@pytest.mark.parametrize("allow_http", [False, True])
def test_refs__no_secret_gets_into_a_plan(tmp_path: Path, entry: str, shown: str, allow_http: bool) -> None:
    row: dict[str, Any] = {"uri": entry}
    if ":geheim" in entry or "Signature" in entry:  # what is told from a harmless address in other columns too
        row |= {"label": entry, "split": entry, "version": entry, "other": entry, "deep": [{"x": [entry, None]}]}
    clean = {"uri": "s3://bucket/a.jpg", "version": "1"}
    path = write(tmp_path, "list.jsonl", "\n".join(map(json.dumps, [row, row, clean])))
    source = ManifestSource(path, allow_http=allow_http)
    text = str(listed(source).to_pylist())
    assert [secret for secret in SECRETS if secret in text] == []
    assert verdicts(source) == [
        (f"{shown}#row-1", "refused"),
        (f"{shown}#row-2", "refused"),
        ("s3://bucket/a.jpg", "1"),
    ]


def test_refs__no_secret_in_columns_of_any_type(tmp_path: Path) -> None:
    secret = "s3://user:geheim@b/k"
    content = {
        "uri": pa.array(["a.jpg"]),
        "pairs": pa.array([[("x", secret)]], pa.map_(pa.string(), pa.string())),
        "struct": pa.array([{"at": datetime.datetime(2024, 1, 1), "of": [secret]}]),
        "coded": pa.array([secret]).dictionary_encode(),
        "fixed": pa.array([[secret, None]], pa.list_(pa.string(), 2)),
    }
    pq.write_table(pa.table(content), tmp_path / "list.parquet")
    (row,) = listed(ManifestSource(str(tmp_path / "list.parquet"))).to_pylist()
    shown = "s3://b/k"
    assert list(row.values())[5:] == [
        [("x", shown)],
        {"at": datetime.datetime(2024, 1, 1), "of": [shown]},
        shown,
        [shown, None],
    ]


def test_refs__extra_columns_keep_harmless_uris(tmp_path: Path) -> None:
    harmless = "https://example.com/page?id=5#top"
    path = write(tmp_path, "list.csv", f"uri,page\na.jpg,{harmless}\n")
    assert listed(ManifestSource(path))["page"].to_pylist() == [harmless]


def test_refs__duplicates(tmp_path: Path) -> None:
    entries = ["a.jpg", "b.jpg", "./a.jpg", *(f"s3://b/{i}" for i in range(20_000)), "x/../b.jpg", "s3a://b/7/"]
    path = write(tmp_path, "list.csv", "uri,label\n" + "".join(f"{entry},{i}\n" for i, entry in enumerate(entries)))
    table = listed(ManifestSource(path))
    assert len(set(table["uri"].to_pylist())) == len(entries)
    found = [row for row in columns_of(table, "uri", "version", "label") if row[1].startswith("reject")]
    assert found == [
        (f"{tmp_path}/a.jpg#row-3", "reject:duplicate:Row 1 of the manifest names the same image.", "2"),
        (f"{tmp_path}/b.jpg#row-20004", "reject:duplicate:Row 2 of the manifest names the same image.", "20003"),
        ("s3://b/7#row-20005", "reject:duplicate:Row 11 of the manifest names the same image.", "20004"),
    ]


def test_refs__a_version_of_the_manifest_is_no_verdict(tmp_path: Path) -> None:
    path = write(tmp_path, "list.csv", "uri,etag\ns3://b/a,reject:missing:no\ns3://b/b,007\ns3://b/c,\n")
    assert listed(ManifestSource(path))["version"].to_pylist() == ["version reject:missing:no", "007", ""]


@pytest.mark.parametrize(
    ("label_from", "split_from", "label", "split"),
    [
        ("auto", "auto", "L", "validation"),
        ("none", "none", None, None),
        ("column:other", "column:set", "O", "train"),
        ("parent", "depth:1", "cat", "train"),
        ("depth:2", "regex:^([a-z]+)/", "cat", "train"),
        ("regex:([0-9]+)", "parent", "12", "cat"),
    ],
)
def test_refs__labels_and_splits(
    tmp_path: Path, label_from: str, split_from: str, label: str | None, split: str | None
) -> None:
    path = write(tmp_path, "list.csv", "uri,label,split,other,set\ntraining/cat/12.jpg,L,val,O,TRAIN\n")
    source = ManifestSource(path, label_from=label_from, split_from=split_from)
    assert columns_of(listed(source), "label", "split") == [(label, split)]
    taken = {"auto": {"label", "split"}, "column:other": {"other", "set"}}.get(label_from, set())
    rest = [name for name in ("label", "split", "other", "set") if name not in taken]
    assert source.columns().names == [f"source_{name}" if name in ("label", "split") else name for name in rest]


def test_refs__label_by_the_path_of_an_object(tmp_path: Path) -> None:
    path = write(tmp_path, "list.csv", 'uri\ns3://bucket/cat/a.jpg\n""\n/dog/a.jpg\ns3://user:geheim@b/c/a.jpg\n')
    assert listed(ManifestSource(path, label_from="depth:1"))["label"].to_pylist() == ["cat", None, "dog", None]


def test_columns__chosen_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "list.csv", ",uri,a,b,label\n0,x.jpg,1,2,cat\n")
    for columns, names in (("all", ["a", "b"]), ("none", []), ("b", ["b"]), ("b, a,b,label", ["b", "a"])):
        source = ManifestSource(path, columns=columns)
        assert source.columns().names == names
        assert listed(source)["label"].to_pylist() == ["cat"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"uri_column": "uris"}, r"--uri-column: .*list.csv has no column 'uris'; its columns are \['uri', 'label'\]"),
        ({"label_from": "column:class"}, r"--label-from: .*no column 'class'; its columns are \['uri', 'label'\]"),
        ({"split_from": "column:set"}, r"--split-from: .*no column 'set'; its columns are \['uri', 'label'\]"),
        ({"columns": "label,width"}, r"--columns: .*no column 'width'; its columns are \['uri', 'label'\]"),
        ({"root": "/no/such/folder"}, "Expected a folder at /no/such/folder, found none"),
    ],
)
def test_columns__unknown_ones(tmp_path: Path, options: dict[str, Any], error: str) -> None:
    source = ManifestSource(write(tmp_path, "list.csv", "uri,label\na.jpg,cat\n"), **options)
    with pytest.raises(ConfigError, match=error):
        source.columns()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"label_from": "folder"}, "--label-from: expected auto, column:NAME, parent"),
        ({"split_from": "column:"}, "--split-from: expected auto, column:NAME, parent"),
        ({"split_from": "depth:x"}, "--split-from: expected"),
        ({"root": "http://example.com"}, "--allow-http"),
        ({"root": "ftp://example.com"}, "Expected a local path, s3://"),
        ({"storage_options": {"secret": "x"}}, "would carry a credential"),
    ],
)
def test_manifest_source__wrong_options(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        ManifestSource("list.csv", **options)


def test_manifest_source__is_told_by_its_suffix() -> None:
    with pytest.raises(ConfigError, match=r"Expected a manifest named \*\.csv, .*, got /tmp/list\.txt"):
        ManifestSource("/tmp/list.txt")


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


def test_read__rows_and_images_in_order(tmp_path: Path, image: Path) -> None:
    path = write(tmp_path, "list.csv", 'uri,label,n\nnone.jpg,x,1\na.jpg,y,2\n"",z,3\na.jpg,w,4\n')
    source: ManifestSource = pickle.loads(pickle.dumps(ManifestSource(path)))
    refs = listed(source).append_column("unit", pa.array([0, 0, 0, 0]))
    reading = source.read(refs, 4)
    found = [(fetched.uri, outcome(fetched)) for fetched in reading.images()]
    assert found == [
        (str(tmp_path / "none.jpg"), RejectCode.MISSING),
        (str(image), b"bytes"),
        (f"{path}#row-3", RejectCode.MISSING),
        (f"{image}#row-4", RejectCode.DUPLICATE),
    ]
    assert reading.rows().to_pydict() == {
        "uri": [uri for uri, _ in found],
        "label": ["x", "y", "z", "w"],
        "split": [None] * 4,
        "n": [1, 2, 3, 4],
    }


def test_read__a_lost_folder_is_no_missing_image(tmp_path: Path) -> None:
    root = tmp_path / "mount"
    samples.write(root / "a.jpg", b"x")
    source = ManifestSource(write(tmp_path, "list.csv", "uri\na.jpg\n"), root=str(root))
    refs = listed(source)
    (root / "a.jpg").unlink()
    assert [outcome(found) for found in source.read(refs, 9).images()] == [RejectCode.MISSING]
    root.rmdir()
    with pytest.raises(TransientError, match="is gone"):
        list(source.read(refs, 9).images())


def test_read__trouble_is_no_reject(tmp_path: Path, image: Path) -> None:
    class Locked(LocalStore):
        def read_bytes(self, uri: str, max_bytes: int | None = None) -> bytes:
            raise PermissionError(13, "Locked", uri)

    source = ManifestSource(write(tmp_path, "list.csv", "uri\na.jpg\n"), Locked())
    with pytest.raises(PermissionError):
        list(source.read(listed(source), 9).images())


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:1", "169.254.169.254", "[::1]:1"])
def test_read__no_web_server_of_this_network(tmp_path: Path, host: str) -> None:
    source = ManifestSource(write(tmp_path, "list.csv", f"uri\nhttp://{host}/a.jpg\n"), allow_http=True)
    assert verdicts(source) == [(f"http://{host}/a.jpg", "")]
    assert images(source) == [(f"http://{host}/a.jpg", RejectCode.REFUSED)]


def test_read__no_web_server_unless_allowed_now(tmp_path: Path) -> None:
    path = write(tmp_path, "list.csv", "uri\nhttp://example.com/a.jpg\n")
    refs = listed(ManifestSource(path, allow_http=True))
    (found,) = ManifestSource(path).read(refs, 9).images()
    assert isinstance(found.data, ImageReject)
    assert (found.data.code, found.data.message) == (
        RejectCode.REFUSED,
        "Web addresses are read with --allow-http only.",
    )


class Bucket:
    """Objects by their URIs, as far as a source needs a store."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects, self.looks = objects, 0

    def info(self, uri: str) -> FileInfo | None:
        return FileInfo(uri, len(self.objects[uri]), "etag") if uri in self.objects else None

    def is_folder(self, uri: str) -> bool:
        self.looks += 1
        return any(name.startswith(f"{uri}/") for name in self.objects)

    def open(self, uri: str, block_bytes: int = 0) -> IO[bytes]:
        return io.BytesIO(self.objects[uri])

    def read_bytes(self, uri: str, max_bytes: int | None = None) -> bytes:
        if uri not in self.objects:
            raise FileNotFoundError(uri)
        return self.objects[uri][: None if max_bytes is None else max_bytes + 1]


def test_read__objects_beside_the_manifest(image: Path) -> None:
    bucket = Bucket({"s3://b/l/list.csv": f"uri\na\nnone\nnone2\n{image}\n".encode(), "s3://b/l/a": b"12345"})
    source = ManifestSource("s3://b/l/list.csv", bucket)  # type: ignore[arg-type]
    assert source.identity == "manifest s3://b/l/list.csv"
    assert verdicts(source)[:2] == [("s3://b/l/a", ""), ("s3://b/l/none", "")]
    refs = listed(source)
    assert [outcome(found) for found in source.read(refs, 3).images()] == [
        b"1234",
        RejectCode.MISSING,
        RejectCode.MISSING,
        b"byte",
    ]
    assert bucket.looks <= 1  # a bucket that has given an object is there
    bucket.objects.clear()
    with pytest.raises(TransientError, match="The bucket s3://b is gone"):
        list(source.read(refs, 3).images())
