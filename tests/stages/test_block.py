"""The pixels of a unit."""

from __future__ import annotations

import numpy as np

from pipeline.stages.block import Rows


def _filled(values: list[int], expected: int) -> Rows:
    rows = Rows(expected)
    for value in values:
        rows.add(f"{value}.jpg", {}, np.full((2, 2, 3), value, np.uint8))
    return rows


def test_pixel_column__has_the_pixels_of_each_image_however_many_were_expected() -> None:
    for expected in (0, 1, 3, 9):
        rows = _filled([1, 2, 3], expected)
        rows.add("reject.jpg", {"code": "empty"})
        assert rows.pixel_column().to_pylist() == [b"\1" * 12, b"\2" * 12, b"\3" * 12, b""]


def test_pixel_column__memory_is_used_again_once_nobody_looks_at_it() -> None:
    first = _filled([1, 2], 2).pixel_column()
    second = _filled([3, 4], 2).pixel_column()
    assert first.to_pylist() == [b"\1" * 12, b"\2" * 12]
    address = second.buffers()[2].address
    del second
    third = _filled([5], 1).pixel_column()
    assert third.buffers()[2].address == address
    assert _filled([6, 7, 8], 3).pixel_column().buffers()[2].address != address
    assert third.to_pylist() == [b"\5" * 12]
