"""Headers: the same sizes as Pillow's, and hostile files cost no more than their length."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ImageReject, RejectCode
from pipeline.headers import MAX_SCANS
from pipeline.images import Limits, decode, read_header
from tests import bombs, samples

MIB = 2**20


def code(data: bytes, limits: Limits | None = None) -> RejectCode:
    with pytest.raises(ImageReject) as caught:
        decode(data, limits)
    return caught.value.code


@pytest.mark.parametrize("name", samples.odd_images())
def test_read_header__gives_the_size_that_pillow_gives(name: str) -> None:
    data = samples.odd_images()[name]
    header = read_header(data, Limits())
    with Image.open(io.BytesIO(data)) as picture:
        assert (header.width, header.height) == picture.size


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("fill bytes", lambda: bombs.jpeg_with(b"\xff" * 16 * MIB)),
        ("stuffed bytes", lambda: bombs.jpeg_with(b"\xff\x00" * 8 * MIB)),
        ("stray bytes", lambda: bombs.jpeg_with(b"\xff\x01" + bytes(16 * MIB))),
        ("comments", lambda: bombs.jpeg_with(b"\xff\xfe\x00\x02" * 4 * MIB)),
        ("GIF comment", lambda: bombs.gif_with_comment(16 * MIB)),
        ("PNG chunks", lambda: bombs.png(bombs.chunk(b"tEXt", b"") * MIB)),
    ],
)
def test_read_header__takes_time_and_memory_in_proportion_at_most(name: str, make: Callable[[], bytes]) -> None:
    data = make()
    tracemalloc.start()
    start = time.process_time()
    with contextlib.suppress(ImageReject):
        read_header(data, Limits())
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Pillow: 30 s for the fill bytes, 290 MB for the comments.
    assert seconds < 10
    assert peak < MIB


def test_jpeg__more_than_so_many_scans_are_a_reject() -> None:
    assert decode(bombs.jpeg_of_scans(MAX_SCANS)).shape == (64, 64, 3)
    assert code(bombs.jpeg_of_scans(MAX_SCANS + 1)) is RejectCode.UNDECODABLE
    # Markers without a length, which a counter must not take for segments to skip.
    hidden = bombs.jpeg_of_scans(10).replace(b"\xff\xda", b"\xff\x01\xff\xda")
    last = hidden.rindex(b"\xff\x01\xff\xda")
    assert code(hidden[:-2] + hidden[last:-2] * 100 + b"\xff\xd9") is RejectCode.UNDECODABLE


def test_jpeg__what_looks_like_scans_after_the_image_does_not_count() -> None:
    data = samples.jpeg(1)
    np.testing.assert_array_equal(decode(data + b"\0\2" + b"\xff\xda\0\2" * 500), decode(data))


@pytest.mark.parametrize(
    "segments",
    [
        b"\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00",  # another frame header
        b"\xff\xd9",
        b"\xff\xfe\x00\x02" * 70_000,
    ],
)
def test_jpeg__odd_segments_before_the_image_are_a_reject(segments: bytes) -> None:
    assert code(bombs.jpeg_with(segments)) is RejectCode.UNDECODABLE


@pytest.mark.parametrize("length", [0, 1, 2])
def test_jpeg__a_segment_shorter_than_its_length_is_stepped_over_as_libjpeg_does(length: int) -> None:
    data = bombs.jpeg_with(b"\xff\xfe" + struct.pack(">H", length))
    assert decode(data).shape == (64, 64, 3)


def test_png__compressed_data_far_beyond_the_pixels_are_a_reject() -> None:
    bomb = bombs.png(bombs.chunk(b"IDAT", bombs.zeros(100 * MIB)))
    assert code(bomb) is RejectCode.UNDECODABLE
    with pytest.raises(ImageReject, match="compressed data for 8 x 8 pixels"):
        decode(bomb)


def test_png__many_chunks_are_a_reject_but_those_of_pixels() -> None:
    assert code(bombs.png(bombs.chunk(b"PLTE", bytes(3)) * 70_000)) is RejectCode.UNDECODABLE
    assert decode(bombs.png(bombs.chunk(b"IDAT", b"") * 70_000)).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_png__compressed_metadata_are_not_inflated_without_bound(kind: bytes) -> None:
    start = time.process_time()
    decode(bombs.png(bombs.chunk(kind, b"k\0" + b"\1\0\0\0" * (kind == b"iTXt") + b"\0" + bombs.zeros(500 * MIB))))
    assert time.process_time() - start < 5


def test_png__without_a_first_chunk_that_says_its_size_is_a_reject() -> None:
    signature, end = b"\x89PNG\r\n\x1a\n", bombs.chunk(b"IEND", b"")
    for first in (b"", bombs.chunk(b"tEXt", bytes(30)), bombs.chunk(b"IHDR", b"")):
        data = signature + first + end
        assert code(data) is RejectCode.UNDECODABLE


def test_gif__compressed_data_far_beyond_the_frame_are_a_reject() -> None:
    assert code(bombs.gif_of_clear_codes(100_000)) is RejectCode.UNDECODABLE


def test_gif__a_screen_is_limited_however_small_its_frame() -> None:
    data = bytearray(samples.encode(samples.crop(1, 64, 64), "GIF"))
    data[6:10] = b"\xff\xff\xff\xff"
    assert code(bytes(data)) is RejectCode.TOO_LARGE


def test_webp__a_canvas_is_limited_and_pillows_own_limit_is_none() -> None:
    assert code(bombs.webp_canvas(16_384, 16_384)) is RejectCode.TOO_LARGE
    assert code(bombs.webp_canvas(2**24, 2**24)) is RejectCode.TOO_LARGE
    assert read_header(bombs.webp_canvas(16_384, 16_384), Limits(max_pixels=2**28)).width == 16_384


def test_bmp__of_the_oldest_header_decodes() -> None:
    rows = bytes(range(48)) * 8
    data = b"BM" + struct.pack("<IHHIIHHHH", 26 + len(rows), 0, 0, 26, 12, 16, 8, 1, 24) + rows
    assert decode(data).shape == (8, 16, 3)
    assert code(data[:-1]) is RejectCode.TRUNCATED


@pytest.mark.parametrize(("width", "height"), [(2_000_000, 1), (40_000, 40_000)])
def test_read_header__beyond_what_opencv_decodes_is_too_large_whatever_the_limit(width: int, height: int) -> None:
    with pytest.raises(ImageReject, match="OpenCV decodes") as caught:
        decode(_png(width, height), Limits(max_pixels=2**40))
    assert caught.value.code is RejectCode.TOO_LARGE


def _png(width: int, height: int) -> bytes:
    header = bombs.chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + bombs.chunk(b"IDAT", b"") + bombs.chunk(b"IEND", b"")
