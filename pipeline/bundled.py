"""Images that come with scikit-learn, written as image folders: for trials that must not download anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: One image in so many goes to the test split.
_TEST_EVERY = 5
#: Digits of the small set.
_FEW_DIGITS = 500
#: Side of a tile (pixels).
_TILE = 48

#: An image, uint8 of shape (H, W) or (H, W, 3), BGR, and its label.
_Labelled = tuple[Any, str]


def write_digits(folder: Path, limit: int | None = None) -> int:
    """Write handwritten digits (8 x 8, grey) as PNG files below ``train/`` and ``test/``, and return how many.

    Files that are there already stay as they are, so that a second run finds nothing new.

    Args:
        folder: Where.
        limit: The first so many of the 1,797; unset: all.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[:limit] * (255 / 16)).round().astype("uint8")  # the data set's values are 0 to 16
    return _write(folder, ((image, str(target)) for image, target in zip(images, digits.target, strict=False)))


def write_few_digits(folder: Path) -> int:
    """Write the first 500 digits; see `write_digits`."""
    return write_digits(folder, _FEW_DIGITS)


def write_tiles(folder: Path) -> int:
    """Write two photographs, cut into 208 tiles that don't overlap, as PNG files, and return how many.

    The label says of which photograph a tile is, and whether of its upper or lower half.
    """
    return _write(folder, _tiles())


def _tiles() -> Iterator[_Labelled]:
    from sklearn.datasets import load_sample_images

    sample = load_sample_images()
    for photograph, name in zip(sample.images, sample.filenames, strict=True):
        rows, columns = (side // _TILE for side in photograph.shape[:2])
        for row in range(rows):
            for column in range(columns):
                tile = photograph[row * _TILE : (row + 1) * _TILE, column * _TILE : (column + 1) * _TILE, ::-1]
                yield tile, f"{Path(name).stem}-{'upper' if row < rows / 2 else 'lower'}"


#: Sets of images by name.
BUNDLED: dict[str, Callable[[Path], int]] = {"few-digits": write_few_digits, "photograph-tiles": write_tiles}


def _write(folder: Path, images: Iterator[_Labelled]) -> int:
    import cv2

    count = 0
    for i, (image, label) in enumerate(images):
        path = folder / ("test" if i % _TEST_EVERY == 0 else "train") / label / f"{i:04d}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}")
            unfinished.write_bytes(cv2.imencode(".png", image)[1].tobytes())
            os.replace(unfinished, path)
        count += 1
    return count
