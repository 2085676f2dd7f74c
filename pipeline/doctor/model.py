"""Measure the engine that a run would use on this machine, at a few batch sizes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from pipeline.doctor.pace import Pace
from pipeline.engines import Engine, EngineInfo

#: Batches before the time is taken; some are at work at once.
_WARM_UP_BATCHES = 4
#: Times an engine's own batch size that is tried, in this order, for as long as there is time.
_SIZES = (2.0, 0.5, 4.0)
_LARGEST = 65536
#: Times the seconds of a measurement, after which no other size is begun.
_LONGEST = 3
#: What another batch size must gain to be worth an option: measurements differ by nearly as much.
_GAIN = 1.1


@dataclass(frozen=True, slots=True)
class BatchPace:
    """How fast an engine is at one batch size (images)."""

    batch_size: int
    images_per_s: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """How fast an engine is.

    Args:
        info: What executes, at its own batch size or the one that was asked for.
        paces: At each size that was tried, that one first.
    """

    info: EngineInfo
    paces: tuple[BatchPace, ...]

    @property
    def best(self) -> BatchPace:
        """The first size, or another one if that is faster by more than measurements differ."""
        fastest = max(self.paces, key=lambda pace: pace.images_per_s)
        return fastest if fastest.images_per_s > _GAIN * self.paces[0].images_per_s else self.paces[0]


def sweep(load: Callable[[int | None], Engine], side: int, asked: int | None, seconds: float) -> Sweep:
    """Measure an engine at its own batch size and, for as long as there is time, at some others.

    Args:
        load: Loads it for a batch size, None for its own.
        side: Height and width of an image (pixels).
        asked: The one batch size to measure; None to try several.
        seconds: Longest time for each size, and half of that for all but the first.
    """
    engine = load(asked)
    info, paces = engine.info, [_pace(engine, side, seconds)]
    del engine  # a device may not have the memory for two
    until = time.perf_counter() + _LONGEST * seconds  # to load one may take long, too
    for factor in () if asked else _SIZES:
        if time.perf_counter() > until:
            break
        size = int(info.batch_size * factor)
        expected_s = (_WARM_UP_BATCHES + 1) * size / paces[0].images_per_s
        if 1 <= size <= _LARGEST and expected_s < seconds:
            paces.append(_pace(load(size), side, seconds / 2))
    return Sweep(info, tuple(paces))


def _pace(engine: Engine, side: int, seconds: float) -> BatchPace:
    return BatchPace(engine.info.batch_size, embed_for(engine, side, seconds).images_per_s)


def embed_for(engine: Engine, side: int, seconds: float) -> Pace:
    """Embed random pixels for so many seconds.

    Args:
        engine: What executes.
        side: Height and width of an image (pixels).
        seconds: How long, after some batches that aren't counted.
    """
    size = engine.info.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), np.uint8)
    batches = engine.embed_batches(repeat(pixels))
    for _ in range(_WARM_UP_BATCHES):
        next(batches)
    started, cpu, count = time.perf_counter(), time.process_time(), 0
    while not count or time.perf_counter() - started < seconds:
        count += len(next(batches))
    return Pace(count, time.perf_counter() - started, time.process_time() - cpu, count * pixels[0].size)
