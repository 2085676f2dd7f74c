"""Tars in any state: compressed, cut off, damaged, made to trick the reader, and on storage in trouble."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import samples
from tests.sources.tars import A, B, C, FailingStore, messages, pack, read, special, tar_bytes

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
