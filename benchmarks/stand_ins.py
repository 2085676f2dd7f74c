"""Stand-ins for the simulation of `benchmarks.scale`: images that cost next to nothing, engines that only take time.

A file of its own, which is not the main program, so that processes on a cluster can import it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from pipeline.actor import BackboneSpec
from pipeline.backbones.pixels import PIXELS_PRESET
from pipeline.contract import FeatureContract
from pipeline.engines import Engine, EngineInfo
from pipeline.engines.base import Embeddings
from pipeline.images import Limits, Pixels
from pipeline.layout import EngineSpec, Layout
from pipeline.preprocessing import Preprocessing
from pipeline.refs import REF_SCHEMA, SOURCE_NAMES
from pipeline.sources import Fetched

#: D of the vectors, as many as the Microsoft Vision ResNet-50 gives.
EMBEDDING_DIM = 2048
_SIDE = PIXELS_PRESET.crop
_REFS_PER_TABLE = 16_384
#: Longest time that an engine waits for the others; starting 64 processes on two cores takes two minutes.
_TOGETHER_S = 600.0


def uri_of(number: int) -> str:
    """Return the URI of an image that nobody has to store."""
    return f"number/{number:09d}.bmp"


def pixels_of(number: int) -> Pixels:
    """Return an image that no other number has: uint8 of shape (32, 32, 3)."""
    digits = np.frombuffer(f"{number:032d}".encode(), np.uint8)
    return np.tile(digits, 3 * _SIDE).reshape(_SIDE, _SIDE, 3)


def vector_of(number: int) -> Embeddings:
    """Return the embedding that `SleepingEngine` gives of an image: its first values, float32 of shape (D,)."""
    return pixels_of(number).reshape(-1)[:EMBEDDING_DIM].astype(np.float32)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A source of numbered images, each made when it is read.

    Args:
        num_images: How many.
    """

    num_images: int
    skipped: Counter[str] = field(default_factory=Counter)
    identity: str = "numbers (simulation)"
    containers: bool = False

    def columns(self) -> pa.Schema:
        """Return no columns."""
        return pa.schema([])

    def refs(self, unit_size: int) -> Iterator[pa.Table]:  # noqa: ARG002
        """Yield every image."""
        for start in range(0, self.num_images, _REFS_PER_TABLE):
            numbers = range(start, min(self.num_images, start + _REFS_PER_TABLE))
            nothing = pa.nulls(len(numbers), pa.string())
            columns = [
                pa.array(map(uri_of, numbers)),
                pa.repeat(pa.scalar("1"), len(numbers)),
                pa.repeat(pa.scalar(1, pa.int32()), len(numbers)),
                nothing,
                nothing,
            ]
            yield pa.table(columns, schema=REF_SCHEMA)

    def read(self, refs: pa.Table, max_bytes: int) -> _Made:  # noqa: ARG002
        """Begin to read a unit."""
        return _Made(refs)


@dataclass(frozen=True, slots=True)
class _Made:
    refs: pa.Table

    def images(self) -> Iterator[Fetched]:
        for uri in self.refs["uri"].to_pylist():
            number = int(uri.removeprefix("number/").removesuffix(".bmp"))
            yield Fetched(uri, cv2.imencode(".bmp", pixels_of(number))[1].tobytes())

    def rows(self) -> pa.Table:
        return self.refs.select(list(SOURCE_NAMES))


class SleepingEngine:
    """Stands in for an accelerator: takes a fixed time for each batch, in which the processor is free.

    Like an accelerator's, its batches of a unit follow one another without a gap, whatever the process does meanwhile.

    Args:
        batch_size: Images of a batch.
        seconds_per_batch: How long each takes.
    """

    def __init__(self, batch_size: int, seconds_per_batch: float) -> None:
        self.info = EngineInfo("simulation", "none", "sleep", batch_size)
        self._seconds_per_batch = seconds_per_batch

    def embed_batches(self, batches: Iterable[Pixels]) -> Iterator[Embeddings]:
        """Give the first values of each image's pixels as its vector, in due time."""
        done_at = time.perf_counter()
        for batch in batches:
            done_at += self._seconds_per_batch
            vectors = batch.reshape(len(batch), -1)[:, :EMBEDDING_DIM].astype(np.float32)
            time.sleep(max(0.0, done_at - time.perf_counter()))
            yield vectors


@dataclass(frozen=True, slots=True)
class SleepingBackbone(BackboneSpec):
    """Loads a `SleepingEngine` where it runs.

    Args:
        seconds_per_batch: How long each batch takes.
        together: Folder in which engines wait until there are ``num_engines``, so that none begins while others start.
        num_engines: How many there will be.
        apart_s: Over how many seconds their beginnings are spread. Those that began together would go on together, and
            all units of a round be committed at once, which real engines don't do.
    """

    seconds_per_batch: float = 0.0
    together: str = ""
    num_engines: int = 1
    apart_s: float = 0.0

    def load(self, spec: EngineSpec, layout: Layout, limits: Limits) -> Engine:  # noqa: ARG002
        """Return the engine, once all others are ready, too."""
        folder, name = Path(self.together), str(time.time_ns())
        folder.joinpath(name).touch()
        give_up_at = time.monotonic() + _TOGETHER_S
        while (ready := len(list(folder.iterdir()))) < self.num_engines:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"Expected {self.num_engines} engines within {_TOGETHER_S:.0f} s, got {ready}.")
            time.sleep(0.2)
        place = sum(other.name < name for other in folder.iterdir()) / self.num_engines
        time.sleep(place * self.apart_s)
        return SleepingEngine(spec.batch_size or 1, self.seconds_per_batch)


def sleeping_backbone(
    seconds_per_batch: float,
    together: Path,
    num_engines: int,
    preset: Preprocessing = PIXELS_PRESET,
    apart_s: float = 0.0,
) -> SleepingBackbone:
    """Return a backbone whose features are an image's own pixels."""
    together.mkdir(parents=True)
    return SleepingBackbone(
        FeatureContract("simulation", "0" * 64, preset.to_json(), EMBEDDING_DIM, "none"),
        preset,
        "none",
        cache_dir="",
        seconds_per_batch=seconds_per_batch,
        together=str(together),
        num_engines=num_engines,
        apart_s=apart_s,
    )
