"""TIFF: decoded as cv2.imread does where it is allowed, and exact codes for all that is no whole image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import ImageReject, RejectCode
from pipeline.images import Limits, decode
from tests import samples, tiffs

ALLOWED = Limits(allow_tiff=True)


@pytest.mark.parametrize("name", tiffs.tiff_images())
def test_decode__gives_the_pixels_of_imread(name: str, tmp_path: Path) -> None:
    path = samples.write(tmp_path / name, tiffs.tiff_images()[name])
    np.testing.assert_array_equal(decode(path.read_bytes(), ALLOWED), cv2.imread(str(path), cv2.IMREAD_COLOR))


def test_decode__two_pages_are_the_first() -> None:
    images = tiffs.tiff_images()
    np.testing.assert_array_equal(decode(images["two-pages.tiff"], ALLOWED), decode(images["plain.tiff"], ALLOWED))


@pytest.mark.parametrize("turn", range(5, 9))
def test_decode__turns_an_image_on_its_side(turn: int) -> None:
    image = samples.crop(7, 60, 80)  # cv2.imread gives nothing for these, cv2.imdecode the turned image
    found = decode(samples.encode(samples.Image.fromarray(image), "TIFF", tiffinfo={0x112: turn}), ALLOWED)
    expected = decode(samples.encode(image, "PNG", exif=samples.exif(turn)))
    np.testing.assert_array_equal(found, expected)


def test_decode__without_permission_a_tiff_is_a_reject_that_says_how_to_get_it() -> None:
    for data in tiffs.tiff_images().values():
        with pytest.raises(ImageReject, match="--allow-tiff") as caught:
            decode(data)
        assert caught.value.code is RejectCode.UNSUPPORTED


@pytest.mark.parametrize("name", tiffs.bad_tiffs())
def test_decode__rejects_with_the_code(name: str) -> None:
    data, code = tiffs.bad_tiffs()[name]
    with pytest.raises(ImageReject) as caught:
        decode(data, ALLOWED)
    assert caught.value.code.value == code, caught.value.message


@pytest.mark.parametrize("name", ["plain.tiff", "16-bit.tiff", "tiles.tiff", "big-big-endian.tiff", "jpeg.tiff"])
def test_decode__every_cut_is_a_reject(name: str) -> None:
    data = tiffs.tiff_images()[name]
    for end in range(4, len(data) - 16, 61):
        with pytest.raises(ImageReject) as caught:
            decode(data[:end], ALLOWED)
        assert caught.value.code is RejectCode.TRUNCATED


def test_decode__of_two_equal_tags_the_first_counts_as_in_libtiff() -> None:
    data = tiffs.grey(20, 10, t255=(tiffs.LONG, [5])).replace(b"\xff\x00\x04\x00\x01", b"\x00\x01\x04\x00\x01")
    assert decode(data, ALLOWED).shape == (10, 5, 3)
