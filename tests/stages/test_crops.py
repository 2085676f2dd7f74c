"""Small images travel as they are decoded, and become crops where they are embedded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.engines import EngineInfo
from pipeline.images import Limits, Pixels
from pipeline.preprocessing import Preprocessing
from pipeline.stages.crops import Crops
from pipeline.stages.embed import embed_unit
from pipeline.stages.read import read_unit
from pipeline.table import Table
from pipeline.table.schema import embedding_type
from tests import samples
from tests.stages.test_stages import Images, plan

EXACT = Preprocessing("p", "exact", 32, 24, "opencv-bilinear", "BGR", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SHORT_SIDE = replace(EXACT, resize="short_side", interpolation="pillow-bilinear")
SIDE = EXACT.crop
VECTOR = embedding_type("float32", 3 * SIDE * SIDE)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path))


class EveryPixel:
    """An engine whose embedding is the image."""

    def __init__(self, batch_size: int) -> None:
        self.info = EngineInfo("pixels", "fp32", "test", batch_size)

    def embed_batches(self, batches: Iterable[Pixels]) -> Iterator[np.ndarray]:
        for pixels in batches:
            assert pixels.flags.c_contiguous
            yield pixels.reshape(len(pixels), -1).astype(np.float32)


def image(height: int, width: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng([height, width, seed]).integers(0, 256, (height, width, 3), np.uint8)
    return samples.encode(pixels, "PNG")


MIXED = {
    "small": image(5, 7),
    "large": image(40, 50),
    "broken": image(30, 30)[:100],
    "half of a crop": image(12, 24),  # not less than half
    "as long as a crop": image(11, 24),
    "high and narrow": image(96, 1),  # few pixels, but they don't lie within a crop
    "small again": image(5, 7),
    "turned by EXIF": samples.odd_images()["exif6.jpg"],
    "a crop": image(SIDE, SIDE),
    "one pixel": image(1, 1),
    "empty": b"",
}


@pytest.mark.parametrize("preprocessing", [EXACT, SHORT_SIDE], ids=["exact", "short_side"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_small_images__give_what_they_give_where_they_are_resized_at_once(
    table: Table, batch_size: int, preprocessing: Preprocessing
) -> None:
    source = Images(dict(MIXED))
    unit = plan(table, source)
    at_once, left = (
        read_unit(table, unit, source, preprocessing, Limits(), leave_small=small) for small in (False, True)
    )
    lengths = {name: len(row.as_py()) for name, row in zip(left["uri"].to_pylist(), left["pixels"], strict=True)}
    assert lengths["small"] == 3 * 5 * 7
    assert lengths["as long as a crop"] == 3 * 11 * 24
    assert lengths["one pixel"] == 3
    whole = ("large", "half of a crop", "high and narrow", "a crop")
    assert [lengths[name] for name in whole] == 4 * [3 * SIDE * SIDE]
    assert lengths["small again"] == lengths["broken"] == lengths["empty"] == 0  # a copy, and rejects
    assert at_once.drop_columns(["pixels", "costs"]).equals(left.drop_columns(["pixels", "costs"]))
    embedded = [
        embed_unit(EveryPixel(batch_size), block, preprocessing, VECTOR, lambda _: None).drop_columns(["costs"])
        for block in (at_once, left)
    ]
    assert embedded[1].equals(embedded[0])
    vectors = embedded[1]["embedding"].combine_chunks().flatten().to_numpy().reshape(len(MIXED), -1)
    assert len({vector.tobytes() for vector in vectors}) == len(MIXED) - 2  # one copy; two rejects are zeros


def test_crops__of_a_part_of_a_block(table: Table) -> None:
    source = Images({str(i): image(3 + i, 4, i) for i in range(8)})
    block = read_unit(table, plan(table, source), source, EXACT, Limits(), leave_small=True)
    whole = Crops(block, np.arange(8), EXACT)[0:8]
    part = Crops(block.slice(3, 4), np.arange(4), EXACT)
    assert len(part) == 4
    np.testing.assert_array_equal(part[1:9], whole[4:7])
    assert len(np.unique(whole.reshape(8, -1), axis=0)) == 8
