"""The crops of a unit's images as the engine takes them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.images import Pixels
from pipeline.preprocessing import Preprocessing
from pipeline.stages.block import whole


class Crops:
    """The crops of some rows, `pipeline.engines.PixelRows`; those of small images are made when their turn comes.

    Args:
        block: What `pipeline.stages.read.read_unit` returned.
        rows: Those that have pixels, which lie one behind the other.
        preprocessing: What makes a crop of an image that was left small.
    """

    def __init__(self, block: pa.Table, rows: NDArray[np.int64], preprocessing: Preprocessing) -> None:
        column = whole(block["pixels"])
        starts = np.frombuffer(column.buffers()[1], np.int64, len(column) + 1, 8 * column.offset)
        self._starts = np.append(starts[rows], starts[-1])
        self._pixels = np.frombuffer(column.buffers()[2], np.uint8)
        some = block.select(["height", "width"]).take(pa.array(rows))
        self._sizes = np.column_stack([some["height"], some["width"]])
        self._preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, part: slice) -> Pixels:
        first, end, _ = part.indices(len(self))
        starts, side = self._starts[first : end + 1], self._preprocessing.crop
        if (np.diff(starts) == 3 * side * side).all():  # as they lie in the object store
            return self._pixels[starts[0] : starts[-1]].reshape(-1, side, side, 3)
        crops = np.empty((end - first, side, side, 3), np.uint8)
        for place, (height, width) in enumerate(self._sizes[first:end]):
            pixels = self._pixels[starts[place] : starts[place + 1]]
            if len(pixels) == crops[place].size:
                crops[place] = pixels.reshape(side, side, 3)
            else:
                crops[place] = self._preprocessing.pixels(pixels.reshape(height, width, 3))
        return crops
