"""Damaged and made-up files: only pixels as the header says, or rejects, come out of the decoder."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ImageReject
from pipeline.images import ACCEPTED_FORMATS, Limits, decode, read_header, sniff
from tests import samples, tiffs
from tests.fuzz_images import fuzz
from tests.mutations import corpus, mutated

pytestmark = pytest.mark.faults

LIMITS = Limits(max_pixels=1_000_000, allow_tiff=True)
STARTS = (
    b"",
    b"\xff\xd8\xff",
    b"\xff\xd8\xff\xc0\x00\x0b\x08",
    b"\x89PNG\r\n\x1a\n",
    b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR",
    b"RIFF\x20\0\0\0WEBP",
    b"RIFF\x20\0\0\0WEBPVP8X",
    b"GIF89a",
    b"BM",
    b"II*\0\x08\0\0\0\x03\0",
    b"MM\0*\0\0\0\x08\0\x03",
    b"II+\0\x08\0\0\0\x10" + bytes(7) + b"\x02" + bytes(7),
)


def check(data: bytes) -> bool:
    """Decode; return whether there were pixels."""
    try:
        pixels = decode(data, LIMITS)
    except ImageReject:
        return False
    header = read_header(data, LIMITS)
    size = header.height, header.width
    assert pixels.dtype == np.uint8
    assert pixels.shape in ((*size, 3), (*size[::-1], 3))
    assert 0 < pixels.shape[0] * pixels.shape[1] <= LIMITS.max_pixels
    return True


@settings(max_examples=500, deadline=None)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=400))
def test_decode__any_bytes_give_pixels_or_a_reject(start: bytes, rest: bytes) -> None:
    check(start + rest)


@settings(max_examples=200, deadline=None)
@given(
    data=st.sampled_from([*samples.odd_images().values(), *tiffs.tiff_images().values()]),
    places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
)
def test_decode__changed_bytes_give_pixels_or_a_reject(data: bytes, places: list[tuple[float, int]]) -> None:
    changed = bytearray(data)
    for place, value in places:
        changed[int(place * len(data))] = value
    check(bytes(changed))


def test_fuzz__finds_no_crash_no_hang_and_no_other_error() -> None:
    report = fuzz(seed=1234, numbers=range(1500), num_processes=2)
    assert not report.failures
    assert sum(report.outcomes.values()) == 1500
    # Of every kind there must be some, or the mutations have lost their bite.
    assert report.outcomes["decoded"] > 150
    for code in ("truncated", "undecodable", "unsupported", "too_large", "empty"):
        assert report.outcomes[code] > 0, code


def test_mutated__is_repeatable_and_reaches_the_decoder_with_every_format() -> None:
    assert mutated(1, 2) == mutated(1, 2) != mutated(1, 3)
    assert {sniff(data) for data in corpus()} == {*ACCEPTED_FORMATS, "TIFF", None}
    changed = [data for data in (mutated(5, number) for number in range(400)) if data not in corpus()]
    assert len(changed) > 350
    assert {sniff(data) for data in changed if check(data)} == {*ACCEPTED_FORMATS, "TIFF"}
