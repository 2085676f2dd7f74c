"""The WebDataset source: shards, samples in any order, labels and columns, and what becomes a reject."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, ImageReject, TransientError
from pipeline.refs import REF_SCHEMA
from pipeline.sources.webdataset import WebDatasetSource
from pipeline.storage import LocalStore
from tests import samples

Member = tuple[str, bytes] | tarfile.TarInfo
A, B, C = (samples.jpeg(seed) for seed in range(3))


def tar_bytes(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def pack(path: Path, *members: Member) -> str:
    return str(samples.write(path, tar_bytes(*members)))


def refs(source: WebDatasetSource) -> list[dict[str, Any]]:
    return [row for table in source.refs(1024) for row in table.to_pylist()]


def read(
    uri: str, max_bytes: int = 10**6, store: LocalStore | None = None, **options: Any
) -> tuple[dict[str, bytes | str], list[dict[str, Any]]]:
    """Return what a shard gives, bytes or reject code by URI without the shard's, and its rows."""
    source = WebDatasetSource(uri, store, **options)
    table = pa.Table.from_pylist([{"uri": uri, "version": "1"}], schema=REF_SCHEMA)
    reading = source.read(table, max_bytes)
    fetched = list(reading.images())
    given = {each.uri.removeprefix(uri): code(each.data) for each in fetched}
    assert len(given) == len(fetched)  # URIs are unique
    rows = reading.rows()
    assert rows["uri"].to_pylist() == [each.uri for each in fetched]
    assert rows.schema.field("label").type == rows.schema.field("split").type == pa.string()
    return given, [{**row, "uri": row["uri"].removeprefix(uri)} for row in rows.to_pylist()]


def code(data: bytes | ImageReject) -> bytes | str:
    if isinstance(data, ImageReject):
        assert data.stage == "read"
        return data.code.value
    return data


def messages(uri: str) -> list[str]:
    table = pa.Table.from_pylist([{"uri": uri, "version": "1"}], schema=REF_SCHEMA)
    fetched = WebDatasetSource(uri).read(table, 10**6).images()
    return [each.data.message for each in fetched if isinstance(each.data, ImageReject)]


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
    assert source.skipped == {"no tar by its name": 1}
    assert source.identity == f"webdataset {tmp_path}"
    assert source.containers


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("s-{000..002}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
        ("s-{002,000,000}.tar", ["s-000.tar", "s-002.tar"]),
        ("s-*.tar", ["s-000.tar", "s-001.tar", "s-002.tar", "s-010.tar"]),
        ("{s-00*,s-000}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
        ("**/s-00[12].tar", ["s-001.tar", "s-002.tar", "x/s-001.tar"]),
        ("{x,s-000.tar}", ["s-000.tar", "x/s-001.tar"]),
        ("odd.name", ["odd.name"]),
        ("s-000.tar", ["s-000.tar"]),
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
    with pytest.raises(ConfigError, match=r"Expected 20 shards .* 9 of them are not there: .*/010\.tar, .* 4 more"):
        list(source.refs(10))
    with pytest.raises(ConfigError, match="Expected 20 shards .* 19 of them are not there"):
        WebDatasetSource(f"{tmp_path}/{{010..029}}.tar").columns()


def test_refs__tables_are_bounded(tmp_path: Path) -> None:
    for number in range(1001):
        samples.write(tmp_path / f"{number:04d}.tar", b"")
    assert [len(table) for table in WebDatasetSource(str(tmp_path)).refs(10)] == [1000, 1]


@pytest.mark.parametrize(
    ("shard", "split"),
    [
        ("train-000.tar", "train"),
        ("TRAIN_000.tar", "train"),
        ("val.tar", "validation"),
        ("validation-1.tar", "validation"),
        ("dev2.tar.gz", "validation"),
        ("imagenet/val/000.tar", "validation"),
        ("Test/000.tar", "test"),
        ("trainer-000.tar", None),
        ("imagenet-train-000.tar", None),
        ("test-of-mine/000.tar", None),
        ("val/more/000.tar", None),
    ],
)
def test_rows__split_by_the_shards_name(tmp_path: Path, shard: str, split: str | None) -> None:
    _, rows = read(pack(tmp_path / shard, ("train/a.jpg", A)))
    assert rows == [{"uri": "#train/a.jpg", "label": None, "split": split}]


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


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=list(COMPRESSIONS))
def test_images__compressed(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = samples.write(tmp_path / "0.tar.any", compress(tar_bytes(("a.jpg", A), ("a.cls", b"7"), ("b.jpg", B))))
    given, rows = read(str(path))
    assert given == {"#a.jpg": A, "#b.jpg": B}
    assert [row["label"] for row in rows] == ["7", None]


@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=list(COMPRESSIONS))
def test_images__cut_anywhere(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    contents = {f"{name}.jpg": os.urandom(700) for name in "abcd"}
    whole = tar_bytes(*contents.items())
    end = len(whole.rstrip(b"\0"))  # behind it are padding and the mark of the end
    data = compress(whole)
    for length in range(1, len(data) if compress is not bytes else end, 61):
        given, rows = read(str(samples.write(tmp_path / "0.tar", data[:length])))
        (damage,) = [uri for uri, value in given.items() if isinstance(value, str)]
        images = {uri.lstrip("#"): value for uri, value in given.items() if uri != damage}
        assert list(images.items()) == list(contents.items())[: len(images)]
        if given[damage] == "unsupported":
            assert (damage, length < 512) == ("", True)
        else:
            assert given[damage] == "truncated"
            assert damage in ("#", f"#{'abcd'[len(images) :][:1]}.jpg")
        assert len(rows) == len(given)


def test_images__cut_within_an_image_is_that_images_reject(tmp_path: Path) -> None:
    data = tar_bytes(("a.jpg", A), ("b.cls", b"cat"), ("c.cls", b"dog"), ("b.jpg", B))
    path = samples.write(tmp_path / "0.tar", data[: data.index(B) + 100])
    given, rows = read(str(path))
    assert given == {"#a.jpg": A, "#c": "missing", "#b.jpg": "truncated"}
    assert rows[-1]["label"] == "cat"
    offset = data.index(B) + 100
    assert messages(str(path))[-1] == (
        f"The tar is cut off or damaged before byte {offset}: it ends after 100 of the member's {len(B)} bytes. "
        "What follows there can't be read."
    )


def test_images__cut_within_a_field(tmp_path: Path) -> None:
    data = tar_bytes(("a.jpg", A), ("a.txt", b"x" * 600))
    path = samples.write(tmp_path / "0.tar", data[: data.index(b"x" * 600) + 100])
    assert read(str(path))[0] == {"#a.jpg": A, "#a.txt": "truncated"}


def test_images__without_the_mark_of_the_end(tmp_path: Path) -> None:
    data = tar_bytes(("a.jpg", A))
    length = 512 + -(-len(A) // 512) * 512
    assert not any(data[length:])
    assert read(str(samples.write(tmp_path / "0.tar", data[: length + 512])))[0] == {"#a.jpg": A}
    path = samples.write(tmp_path / "1.tar", data[:length])
    assert read(str(path))[0] == {"#a.jpg": A, "#": "truncated"}
    assert f"byte {length}: it ends without the mark of a tar's end" in messages(str(path))[0]


def test_images__damaged_header(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(("a.jpg", A), ("b.jpg", B), ("c.jpg", C)))
    data[data.index(b"b.jpg\0")] ^= 1
    path = str(samples.write(tmp_path / "0.tar", bytes(data)))
    assert read(path)[0] == {"#a.jpg": A, "#": "undecodable"}
    assert "no member's header is where one should be" in messages(path)[0]


def test_images__damaged_compression(tmp_path: Path) -> None:
    data = gzip.compress(tar_bytes(("a.jpg", A)))
    path = str(samples.write(tmp_path / "0.tar", data[:-8] + b"wrong"[:4] + data[-4:]))
    assert read(path)[0] == {"#a.jpg": A, "#": "undecodable"}
    assert "CRC check failed" in messages(path)[0]
    two = gzip.compress(tar_bytes(("a.jpg", A))[:1000]) + gzip.compress(tar_bytes(("a.jpg", A))[1000:])
    assert read(str(samples.write(tmp_path / "1.tar", two)))[0] == {"#a.jpg": A}


def test_images__several_tars_in_one_file(tmp_path: Path) -> None:
    path = samples.write(tmp_path / "0.tar", tar_bytes(("a.jpg", A)) + tar_bytes(("b.jpg", B)))
    assert read(str(path))[0] == {"#a.jpg": A, "#": "undecodable"}
    assert "several tars in one" in messages(str(path))[0]


@pytest.mark.parametrize(
    "data", [b"x", b"this is no tar\n" * 99, samples.jpeg(1), gzip.compress(b"no tar"), b"\x28\xb5"]
)
def test_images__no_tar(tmp_path: Path, data: bytes) -> None:
    assert read(str(samples.write(tmp_path / "0.tar", data)))[0] == {"": "unsupported"}


def test_images__empty_and_without_members(tmp_path: Path) -> None:
    assert read(str(samples.write(tmp_path / "0.tar", b"")))[0] == {"": "empty"}
    assert read(pack(tmp_path / "1.tar")) == ({}, [])


def test_images__a_vanished_shard_is_a_reject_but_a_vanished_folder_is_not(tmp_path: Path) -> None:
    uri = str(tmp_path / "train" / "0.tar")
    with pytest.raises(TransientError, match="is gone"):
        read(uri)
    (tmp_path / "train").mkdir()
    assert read(uri) == ({"": "missing"}, [{"uri": "", "label": None, "split": "train"}])


def test_images__headers_that_would_trick_tarfile(tmp_path: Path) -> None:
    huge = tarfile.TarInfo("x")
    huge.type, huge.size = tarfile.GNUTYPE_LONGNAME, 2**40
    data = tar_bytes(("a.jpg", A)).rstrip(b"\0")
    data += bytes(-len(data) % 512)
    for header in (
        huge.tobuf(tarfile.GNU_FORMAT),
        sized(-512),
        special("x", tarfile.XHDTYPE).tobuf() + sized(-(2**30)),
        pax_size(-1024),
    ):
        path = samples.write(tmp_path / "0.tar", data + header + bytes(4096))
        assert read(str(path))[0] == {"#a.jpg": A, "#": "undecodable"}


def sized(size: int) -> bytes:
    header = bytearray(tarfile.TarInfo("b.jpg").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\xff" + (256**11 + size).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def pax_size(size: int) -> bytes:
    info = tarfile.TarInfo("b.jpg")
    info.pax_headers = {"size": str(size)}
    return info.tobuf(tarfile.PAX_FORMAT)


def test_images__sparse_members_are_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("b.jpg")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": "1000", "GNU.sparse.map": "0,0"}
    uri = pack(tmp_path / "0.tar", ("a.jpg", A), info, ("c.jpg", C))
    assert read(uri)[0] == {"#a.jpg": A, "#b.jpg": "unsupported", "#c.jpg": C}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 8191), st.integers(0, 255)), max_size=12),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_images__any_bytes(tmp_path: Path, changes: list[tuple[int, int]], form: int) -> None:
    members = (("x" * 120 + "é/a.jpg", b"a" * 600), ("b.cls", b"1"), special("c", tarfile.SYMTYPE, "y" * 150))
    data = bytearray(tar_bytes(*members, ("b.jpg", b"b" * 10), form=form)[:8192])
    for place, value in changes:
        data[place % len(data)] = value
    given, rows = read(str(samples.write(tmp_path / "0.tar", bytes(data))))
    assert len(rows) == len(given) <= 6


class FailingStore(LocalStore):
    """A store whose files can be read up to a place only."""

    def __init__(self, length: int, error: Exception) -> None:
        self.length, self.error = length, error

    def open(self, uri: str, block_bytes: int = 0) -> IO[bytes]:
        file, length, error = super().open(uri), self.length, self.error

        class File(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = super().read(min(size or 0, 200))
                if self.tell() > length:
                    raise error
                return data

        with file:
            return File(file.read())


@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=list(COMPRESSIONS))
def test_images__trouble_of_the_storage_is_no_reject(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    data = compress(tar_bytes(("a.jpg", A), ("a.cls", b"1"), ("b.jpg", B)))
    uri = str(samples.write(tmp_path / "0.tar", data))
    assert len(read(uri, store=FailingStore(len(data), OSError()))[0]) == 2
    for length in range(0, len(data) - 200, 531):
        with pytest.raises(PermissionError, match="^not now$"):
            read(uri, store=FailingStore(length, PermissionError("not now")))
        with pytest.raises(OSError, match="EOFError: connection lost"):
            read(uri, store=FailingStore(length, EOFError("connection lost")))


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


def test_images__longer_than_the_limit(tmp_path: Path) -> None:
    uri = pack(tmp_path / "0.tar", ("a.jpg", b"x" * 5000), ("b.jpg", b"y" * 10))
    assert read(uri, max_bytes=10)[0] == {"#a.jpg": b"x" * 11, "#b.jpg": b"y" * 10}


def test_rows__fields_longer_than_the_limit_are_null(tmp_path: Path) -> None:
    uri = pack(tmp_path / "0.tar", ("a.txt", b"x" * (16 * 2**20 + 1)), ("a.jpg", A), ("b.txt", b"y"), ("b.jpg", B))
    assert [row["txt"] for row in read(uri)[1]] == [None, "y"]


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


META = {"label": 3, "a": {"b": "deep", "c": None}, "a.b": "flat", "yes": True, "half": "\ud800", "list": [1], "no": ""}


@pytest.mark.parametrize(
    ("rule", "label"),
    [
        ("auto", "7"),
        ("cls", "7"),
        ("txt", "a text"),
        ("json:label", "3"),
        ("json:a.b", "flat"),
        ("json:a.c", None),
        ("json:a", '{"b": "deep", "c": null}'),
        ("json:yes", "true"),
        ("json:half", "?"),
        ("json:list", "[1]"),
        ("json:no", None),
        ("json:label.x", None),
        ("none", None),
        ("parent", "cat"),
        ("depth:1", "train"),
        ("depth:4", None),
        ("regex:_([0-9]+)", "01"),
    ],
)
def test_rows__labels(tmp_path: Path, rule: str, label: str | None) -> None:
    members = [("img.txt", b" a text "), ("img.json", json.dumps(META).encode()), ("img.cls", b"7\n")]
    members = [(f"train/cat/{name.replace('img', 'img_01')}", data) for name, data in [*members, ("img.jpg", A)]]
    _, rows = read(pack(tmp_path / "0.tar", *members), label_from=rule)
    expected = {"uri": "#train/cat/img_01.jpg", "label": label, "split": None, "json": json.dumps(META)}
    if rule not in ("auto", "cls"):
        expected["cls"] = "7\n"
    if rule != "txt":
        expected["txt"] = " a text "
    assert rows == [expected]


@pytest.mark.parametrize(
    ("rule", "split"), [("none", None), ("depth:1", "validation"), ("regex:(c)at", "c"), ("json:s", "test")]
)
def test_rows__splits(tmp_path: Path, rule: str, split: str | None) -> None:
    uri = pack(tmp_path / "train-0.tar", ("val/cat.jpg", A), ("val/cat.json", b'{"s": "Testing"}'))
    assert [row["split"] for row in read(uri, split_from=rule)[1]] == [split]


@pytest.mark.parametrize("option", [{"label_from": "column:x"}, {"label_from": "cls:x"}, {"label_from": "json:"}])
def test_webdataset_source__refuses_unknown_rules(option: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="Option --label-from: expected auto, cls, txt, json:FIELD, parent, depth:N"):
        WebDatasetSource("/x", **option)


def test_webdataset_source__refuses_other_options() -> None:
    with pytest.raises(ConfigError, match="Option --split-from: expected auto, json:FIELD, depth:N"):
        WebDatasetSource("/x", split_from="cls")
    with pytest.raises(ConfigError, match="Expected braces as in"):
        WebDatasetSource("/x/{000..099.tar")


def test_columns__types_by_the_fields_names(tmp_path: Path) -> None:
    fields = ("cls", "json", "txt", "en.txt", "seg.png", "npy", "label", "__key__", "x.__url__")
    pack(tmp_path / "0.tar", *((f"a.{field}", b"{}") for field in fields), ("a.jpg", A), ("b.md", b"no image"))
    expected = {
        "__key__": pa.string(),
        "en.txt": pa.string(),
        "json": pa.string(),
        "npy": pa.binary(),
        "seg.png": pa.binary(),
        "source_label": pa.binary(),
        "txt": pa.string(),
        "x.__url__": pa.string(),
    }
    uri = str(tmp_path / "0.tar")
    assert {field.name: field.type for field in WebDatasetSource(uri).columns()} == expected
    assert WebDatasetSource(uri, columns="none").columns() == pa.schema([])
    assert WebDatasetSource(uri, columns="cls, txt").columns() == pa.schema(
        [("cls", pa.string()), ("txt", pa.string())]
    )
    assert set(read(uri)[1][0]) == {"uri", "label", "split", *expected}
    assert read(uri, columns="Label")[1][0] == {"uri": "#a.jpg", "label": "{}", "split": None, "source_label": b"{}"}


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


def test_columns__names_that_two_fields_share(tmp_path: Path) -> None:
    uri = pack(tmp_path / "0.tar", ("a.jpg", A), ("a.label", b""), ("a.source_label", b""))
    with pytest.raises(ConfigError, match="Fields 'label' and 'source_label' would share the column 'source_label'"):
        WebDatasetSource(uri).columns()


def test_columns__nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no tar there"):
        WebDatasetSource(str(tmp_path)).columns()
    with pytest.raises(ConfigError, match="found no tar there"):
        WebDatasetSource(str(tmp_path / "nowhere.tar")).columns()
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
