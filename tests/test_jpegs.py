"""Which JPEGs are left to a GPU: those of the usual kind, and no other."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from pipeline.errors import ImageReject, RejectCode
from pipeline.images import Limits, decode
from pipeline.jpegs import size_for_gpu
from tests import samples

LIMITS = Limits(allow_tiff=True)


def jpeg(**options: object) -> bytes:
    return samples.encode(samples.crop(7, 150, 200), "JPEG", **options)


def with_segment(data: bytes, marker: int, segment: bytes) -> bytes:
    return data[:2] + bytes([0xFF, marker]) + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]


GOOD = {
    "plain": jpeg(),
    "4:4:4": jpeg(subsampling=0),
    "4:2:2": jpeg(subsampling=1),
    "upright": jpeg(exif=samples.exif(1)),
    "EXIF without orientation": with_segment(jpeg(), 0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "big-endian EXIF": with_segment(
        jpeg(), 0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\0\0\0\0"
    ),
    "a comment": jpeg(comment=b"\xff\xda no scan"),
    "XMP": with_segment(jpeg(), 0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
    "Adobe's YCbCr": with_segment(jpeg(), 0xEE, b"Adobe\0d\0\0\0\0\x01"),
}


@pytest.mark.parametrize("name", GOOD)
def test_size_for_gpu__usual_jpegs(name: str) -> None:
    assert size_for_gpu(GOOD[name], LIMITS) == (150, 200)
    assert decode(GOOD[name]).shape == (150, 200, 3)


def _two() -> bytes:
    stream = io.BytesIO()
    picture = Image.fromarray(samples.crop(7, 150, 200))
    picture.save(stream, "MPO", save_all=True, append_images=[picture])
    return stream.getvalue()


def _named(names: bytes) -> bytes:
    """Return a JPEG whose components have other names; by R, G and B libjpeg knows that they are no YCbCr."""
    data = bytearray(jpeg())
    for marker, first, step in ((b"\xff\xc0", 10, 3), (b"\xff\xda", 5, 2)):
        place = data.index(marker) + first
        data[place : place + 3 * step : step] = names
    return bytes(data)


ODD = {
    "named-rgb.jpg": _named(b"RGB"),
    **{name: data for name, data in samples.odd_images().items() if name != "plain.jpg"},
    "two in one.jpg": _two(),
    "rgb.jpg": jpeg(keep_rgb=True),
    "adobe-rgb.jpg": with_segment(jpeg(), 0xEE, b"Adobe\0d\0\0\0\0\0"),
    "cut-exif.jpg": with_segment(jpeg(), 0xE1, b"Exif\0\0II*\0\x08\0\0\0\x05\0\0\0"),
}


@pytest.mark.parametrize("name", ODD)
def test_size_for_gpu__odd_ones_are_for_the_cpu(name: str) -> None:
    assert size_for_gpu(ODD[name], LIMITS) is None


def test_size_for_gpu__large_ones_are_for_the_cpu() -> None:
    data = bytearray(jpeg())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = (10_000).to_bytes(2, "big") * 2
    assert size_for_gpu(bytes(data), LIMITS) is None


@pytest.mark.parametrize("name", samples.bad_images())
def test_size_for_gpu__rejects_what_the_cpu_rejects_by_the_header(name: str) -> None:
    data, code = samples.bad_images()[name]
    if name in ("damaged.png", "damaged-data.png"):  # which only a decoder finds out
        assert size_for_gpu(data, Limits()) is None
        return
    with pytest.raises(ImageReject) as caught:
        size_for_gpu(data, Limits())
    assert caught.value.code.value == code


def test_size_for_gpu__limits_are_applied() -> None:
    with pytest.raises(ImageReject) as caught:
        size_for_gpu(jpeg(), Limits(max_pixels=29_999))
    assert caught.value.code is RejectCode.TOO_LARGE
