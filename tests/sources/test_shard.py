"""Samples of a tar: members in any order, URIs, what is there twice or must not be read, and memory."""

from __future__ import annotations

import os
import tarfile
import tracemalloc
from pathlib import Path

import pyarrow as pa

from pipeline.refs import REF_SCHEMA
from pipeline.sources.webdataset import WebDatasetSource
from tests import samples
from tests.sources.tars import A, B, C, FailingStore, messages, pack, read, special, tar_bytes


def test_rows__samples_in_any_order(tmp_path: Path) -> None:
    uri = pack(
        tmp_path / "0.tar",
        ("x/b.json", b'{"k": "\xc3\xa9"}'),
        ("x/a.CLS", b" cat\n"),
        ("x/b.JPG", B),
        ("x/c.seg.png", b"mask"),
        ("x/a.txt", b"caf\xe9"),
        ("x/c.cls", b"\xff"),
        ("x/c.jpeg", C),
        ("x/b.cls", b"dog"),
        ("x/a.png", A),
        ("x/c.json", b"{broken"),
    )
    given, rows = read(uri)
    assert given == {"#x/b.JPG": B, "#x/c.jpeg": C, "#x/a.png": A}
    assert rows == [
        {"uri": "#x/b.JPG", "label": "dog", "split": None, "json": '{"k": "é"}', "seg.png": None, "txt": None},
        {"uri": "#x/c.jpeg", "label": None, "split": None, "json": None, "seg.png": b"mask", "txt": None},
        {"uri": "#x/a.png", "label": "cat", "split": None, "json": None, "seg.png": None, "txt": "caf�"},
    ]


def test_images__keys_as_webdataset_has_them(tmp_path: Path) -> None:
    uri = pack(
        tmp_path / "0.tar",
        special("d.jpg", tarfile.DIRTYPE),
        ("./a.jpg", A),
        ("a.txt", b"same key"),
        ("a.v1/a.jpg", B),
        ("a.v1/a.txt", b"another key"),
        ("._a.jpg", b"resource fork"),
        (".git/b.jpg", b"hidden"),
        ("x/.b.jpg", b"hidden"),
        ("c.tar.jpg", b"a field"),
        ("c.jpg", C),
        ("c", b"no suffix"),
    )
    given, rows = read(uri)
    assert given == {"#./a.jpg": A, "#a.v1/a.jpg": B, "#c.jpg": C}
    assert [(row["txt"], row["tar.jpg"]) for row in rows] == [
        ("same key", None),
        ("another key", None),
        (None, b"a field"),
    ]
    assert "" not in rows[0]


def test_images__several_images_of_a_sample(tmp_path: Path) -> None:
    uri = pack(
        tmp_path / "0.tar",
        ("a.jpg", A),
        ("a.jpg", B),
        ("b.cls", b"1"),
        ("b.png", B),
        ("b.cls", b"2"),
        ("b.webp", C),
        ("a.jpg", C),
        special("a.jpg#2", tarfile.SYMTYPE, "x"),
        special("a.jpg#4", tarfile.SYMTYPE, "x"),
    )
    given, rows = read(uri)
    assert given == {
        "#a.jpg": A,
        "#a.jpg#2": "duplicate",
        "#b.png": B,
        "#b.webp#2": "duplicate",
        "#a.jpg#3": "duplicate",
        "#a.jpg#2#2": "unsafe",
        "#a.jpg#4": "unsafe",
    }
    assert [row["label"] for row in rows] == [None, None, "1", None, None, None, None]
    assert messages(uri)[1] == "Sample 'b' has 2 images or more; the first one is taken."


def test_images__a_field_twice_is_told(tmp_path: Path) -> None:
    members = [("a.cls", b"1"), ("a.jpg", A), ("a.CLS", b"2"), ("a.cls", b"3"), ("a.txt", b"x"), ("a.txt", b"y")]
    uri = pack(tmp_path / "0.tar", *members)
    given, rows = read(uri)
    assert given == {"#a.jpg": A, "#a.CLS#2": "duplicate", "#a.txt#2": "duplicate"}
    assert rows[0] == {"uri": "#a.jpg", "label": "1", "split": None, "txt": "x"}
    assert rows[1] == {"uri": "#a.CLS#2", "label": None, "split": None, "txt": None}
    assert messages(uri)[0] == "Sample 'a' has field 'cls' 3 times; the first one is taken."
    given, _ = read(uri, columns="none", label_from="none")
    assert given == {"#a.jpg": A}  # nothing was taken, so nothing was lost


def test_images__links_devices_and_odd_paths(tmp_path: Path) -> None:
    uri = pack(
        tmp_path / "0.tar",
        ("a.jpg", A),
        special("b.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("c.jpg", tarfile.LNKTYPE, "a.jpg"),
        special("d.jpg", tarfile.CHRTYPE),
        special("e.jpg", tarfile.FIFOTYPE),
        ("/f.jpg", B),
        ("../g.jpg", B),
        ("x/../../.h.jpg", B),
        ("./.", B),
        ("b.cls", b"cat"),
        ("i.jpg", C),
        special("a.cls", tarfile.SYMTYPE, "/etc/passwd"),
    )
    given, rows = read(uri)
    names = ("b.jpg", "c.jpg", "d.jpg", "e.jpg", "/f.jpg", "../g.jpg", "x/../../.h.jpg", "./.", "a.cls")
    assert given == {"#a.jpg": A, "#i.jpg": C, **{f"#{name}": "unsafe" for name in names}}
    assert {row["label"] for row in rows} == {None}
    assert messages(uri)[0].startswith("Expected a file, got a symbolic link to '/etc/passwd'.")
    assert messages(uri)[1].startswith("Expected a file, got a hard link to 'a.jpg'.")


def test_images__a_sample_without_image(tmp_path: Path) -> None:
    uri = pack(tmp_path / "0.tar", ("x/a.cls", b"1"), ("b.jpg", B), ("x/a.seg.png", b""), ("README", b""))
    given, rows = read(uri)
    assert given == {"#b.jpg": B, "#x/a": "missing", "#README": "missing"}
    assert list(rows[0]) == ["uri", "label", "split"]  # no column for fields that no image has
    assert messages(uri) == [
        "Expected an image (such as .jpg) in sample 'x/a', got 2 fields: cls, seg.png.",
        "Expected an image (such as .jpg) in sample 'README', got 1 fields: (no suffix).",
    ]


def test_images__names_that_are_no_utf8(tmp_path: Path) -> None:
    names = [os.fsdecode(name) for name in (b"caf\xe9.jpg", b"caf\xe8.jpg", b"caf\xe8.f\xe9")]
    data = tar_bytes((names[0], A), (names[1], B), (names[2], b"z"), form=tarfile.GNU_FORMAT)
    given, rows = read(str(samples.write(tmp_path / "0.tar", data)))
    assert given == {"#caf�.jpg": A, "#caf�.jpg#2": B}
    assert [row["f�"] for row in rows] == [None, b"z"]
    uri = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tar")
    Path(uri).write_bytes(data)
    (table,) = WebDatasetSource(uri).refs(1)
    assert len(list(WebDatasetSource(uri).read(table, 10**6).images())) == 2


def test_images__longer_than_the_limit(tmp_path: Path) -> None:
    uri = pack(tmp_path / "0.tar", ("a.jpg", b"x" * 5000), ("b.jpg", b"y" * 10))
    assert read(uri, max_bytes=10)[0] == {"#a.jpg": b"x" * 11, "#b.jpg": b"y" * 10}


def test_rows__fields_longer_than_the_limit_are_null(tmp_path: Path) -> None:
    uri = pack(tmp_path / "0.tar", ("a.txt", b"x" * (16 * 2**20 + 1)), ("a.jpg", A), ("b.txt", b"y"), ("b.jpg", B))
    assert [row["txt"] for row in read(uri)[1]] == [None, "y"]


def test_images__one_in_memory_at_a_time(tmp_path: Path) -> None:
    size = 4 * 2**20
    uri = pack(tmp_path / "0.tar", *((f"{i}.jpg", os.urandom(size)) for i in range(5)))
    table = pa.Table.from_pylist([{"uri": uri, "version": "1"}], schema=REF_SCHEMA)
    images = WebDatasetSource(uri).read(table, 2 * size).images()
    tracemalloc.start()
    try:
        for _ in range(5):
            assert len(next(images).data) == size
        assert next(images, None) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.9 * size


def test_images__are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    uri = pack(tmp_path / "0.tar", *((f"{i}.jpg", os.urandom(2**20)) for i in range(8)))
    store = FailingStore(4 * 2**20, OSError("read too far"))
    images = WebDatasetSource(uri, store).read(pa.table({"uri": [uri]}), 2**21).images()
    assert [next(images).uri for _ in range(2)] == [f"{uri}#0.jpg", f"{uri}#1.jpg"]
