"""The pixels of a unit."""

from __future__ import annotations

import tracemalloc

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


def test_pixel_column__its_memory_ends_with_it() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    tracemalloc.start()
    try:
        rows = Rows(100)
        for number in range(100):
            rows.add(f"{number}.jpg", {}, image)
        column = rows.pixel_column()
        assert 100 * image.size <= tracemalloc.get_traced_memory()[0] < 101 * image.size + 500_000  # no second copy
        del rows, column
        assert tracemalloc.get_traced_memory()[0] < image.size
    finally:
        tracemalloc.stop()
