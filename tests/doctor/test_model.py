"""The model's rate at several batch sizes, by an engine that only takes its time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from pipeline.doctor.model import BatchPace, Sweep, embed_for, sweep
from pipeline.engines import Embeddings, EngineInfo
from pipeline.images import Pixels

#: Seconds of one call of the network.
CALL_S = 0.004


class TimedEngine:
    """Takes a fixed time a batch, whatever its size."""

    def __init__(self, batch_size: int | None) -> None:
        self.info = EngineInfo("timed", "fp32", "clock", batch_size or 8)

    def embed_batches(self, batches: Iterable[Pixels]) -> Iterator[Embeddings]:
        for pixels in batches:
            assert pixels.shape == (self.info.batch_size, 32, 32, 3)
            time.sleep(CALL_S)
            yield np.zeros((len(pixels), 4), np.float32)


def test_embed_for__counts_images_after_the_warm_up() -> None:
    pace = embed_for(TimedEngine(8), 32, 0.1)
    assert pace.images % 8 == 0
    assert 0 < pace.images <= 8 * (0.1 / CALL_S + 1)
    assert 0 < pace.images_per_s <= 8 / CALL_S
    assert pace.seconds >= 0.1


def test_sweep__tries_sizes_around_the_engines_own_and_takes_the_fastest() -> None:
    found = sweep(TimedEngine, 32, None, 0.3)
    assert found.info.batch_size == 8
    assert [pace.batch_size for pace in found.paces] == [8, 16, 4, 32]
    assert found.best.batch_size == 32


def test_sweep__the_size_that_was_asked_for_alone() -> None:
    found = sweep(TimedEngine, 32, 3, 0.02)
    assert [pace.batch_size for pace in found.paces] == [3]


def test_sweep__leaves_out_what_there_is_no_time_for() -> None:
    found = sweep(TimedEngine, 32, None, CALL_S)
    assert [pace.batch_size for pace in found.paces] == [8]


@pytest.mark.parametrize(("other", "best"), [(109.0, 8), (111.0, 16)])
def test_best__another_size_must_gain_more_than_measurements_differ(other: float, best: int) -> None:
    paces = (BatchPace(8, 100.0), BatchPace(16, other))
    assert Sweep(EngineInfo("timed", "fp32", "clock", 8), paces).best.batch_size == best
