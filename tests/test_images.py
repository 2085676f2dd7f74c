"""Decoding: the same pixels as cv2.imread, and exact codes for all that is no whole image."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import ImageReject, RejectCode
from pipeline.images import Limits, decode, sniff
from tests import samples


@pytest.mark.parametrize("name", samples.odd_images())
def test_decode__gives_the_pixels_of_imread(name: str, tmp_path: Path) -> None:
    path = samples.write(tmp_path / name, samples.odd_images()[name])
    np.testing.assert_array_equal(decode(path.read_bytes()), cv2.imread(str(path), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("turn", range(5, 9))
def test_decode__turns_an_exif_rotated_image(turn: int) -> None:
    assert decode(samples.odd_images()[f"exif{turn}.jpg"]).shape == (200, 150, 3)


def test_decode__is_bgr() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[:, :, 0] = 255
    np.testing.assert_array_equal(decode(samples.encode(red, "PNG"))[0, 0], [0, 0, 255])


@pytest.mark.parametrize("name", samples.bad_images())
def test_decode__rejects_with_the_code(name: str) -> None:
    data, code = samples.bad_images()[name]
    with pytest.raises(ImageReject) as caught:
        decode(data)
    assert (caught.value.code.value, caught.value.stage) == (code, "decode")
    assert len(caught.value.message) > 10


def test_decode__every_cut_of_a_jpeg_is_a_reject() -> None:
    data = samples.jpeg(1)
    for end in range(0, len(data) - 1, 97):
        with pytest.raises(ImageReject):
            decode(data[:end])


def test_decode__accepts_bytes_after_the_end() -> None:
    for image_format in ("JPEG", "PNG", "WEBP", "GIF"):
        data = samples.encode(samples.crop(1), image_format)
        np.testing.assert_array_equal(decode(data + b"trailer of a camera"), decode(data))


def test_decode__limits_are_inclusive() -> None:
    data = samples.encode(samples.crop(1, 10, 20), "PNG")
    assert decode(data, Limits(max_pixels=200, max_bytes=len(data))).shape == (10, 20, 3)
    for limits in (Limits(max_pixels=199), Limits(max_bytes=len(data) - 1)):
        with pytest.raises(ImageReject) as caught:
            decode(data, limits)
        assert caught.value.code is RejectCode.TOO_LARGE


def test_sniff__names_accepted_formats_and_tiff() -> None:
    assert sniff(samples.jpeg(0)) == "JPEG"
    assert [sniff(start) for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")] == ["TIFF"] * 4
    assert sniff(b"II\0*") is None


def test_decode__skips_stray_bytes_and_odd_metadata_as_imread_does() -> None:
    data = samples.jpeg(1)
    stray = data[:2] + b"\x00" + data[2:]
    if cv2.imdecode(np.frombuffer(stray, np.uint8), cv2.IMREAD_COLOR) is not None:
        np.testing.assert_array_equal(decode(stray), decode(data))
    png = samples.encode(samples.crop(1), "PNG")
    text = zlib.compress(bytes(5_000_000))
    body = b"iTXt" + b"key\0\x01\0\0\0" + text
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    np.testing.assert_array_equal(decode(png[:33] + chunk + png[33:]), decode(png))


def test_decode__no_memory_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        error = cv2.error("Failed to allocate")
        error.code, error.err = -4, "Failed to allocate"
        raise error

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(MemoryError, match="no memory for this JPEG"):
        decode(samples.jpeg(1))
