"""Measure reading and decoding, as read tasks do them: several processes at once, each with its share of a sample.

What a process reads stays in it, and is then decoded there: so no image travels, and the two are measured apart.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from multiprocessing.connection import wait
from typing import TypeVar

import pyarrow as pa

from pipeline.doctor.pace import Pace, in_turn
from pipeline.doctor.sample import Seen
from pipeline.errors import ConfigError, ImageReject
from pipeline.images import Limits, sniff
from pipeline.preprocessing import Decode, Preprocessing, decode_and_crop
from pipeline.sources import Fetched, Source

#: What a process keeps of what it has read, to decode it.
_KEPT_IMAGES, _KEPT_BYTES = 256, 64 * 2**20
#: Images read of a container of unknown length at least; and of all containers of a share together, if there are few.
_OF_A_CONTAINER, _OF_CONTAINERS = 64, 4096


class Kept:
    """Images chosen at random, each as likely as any other, out of those that came by (Vitter's algorithm R)."""

    def __init__(self) -> None:
        self.images: list[Fetched] = []
        self._num_seen, self._num_bytes, self._random = 0, 0, random.Random(0)  # noqa: S311

    def add(self, image: Fetched) -> None:
        """Note one that came by."""
        self._num_seen += 1
        place = self._random.randrange(self._num_seen) if len(self.images) == _KEPT_IMAGES else len(self.images)
        if place >= _KEPT_IMAGES:
            return
        more = _length(image) - sum(map(_length, self.images[place : place + 1]))
        if not self.images or self._num_bytes + more <= _KEPT_BYTES:
            self.images[place : place + 1] = [image]
            self._num_bytes += more


#: What this process has read.
_kept = Kept()

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Read:
    """What a process has read.

    Args:
        pace: How fast.
        seen: Containers whose number of images isn't known from their refs.
    """

    pace: Pace
    seen: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a process has decoded.

    Args:
        pace: How fast; of the images that decode, over and over.
        formats: How many of the sample have each format.
        sizes: Width and height of each image that decodes (pixels).
        rejects: How many of the sample were rejected, by code.
        example: URI of the first reject and why, if there is any.
    """

    pace: Pace
    formats: Counter[str]
    sizes: tuple[tuple[int, int], ...]
    rejects: Counter[str]
    example: tuple[str, str] | None

    @property
    def num_looked_at(self) -> int:
        """Images of the sample that were decoded or rejected."""
        return len(self.sizes) + self.rejects.total()

    @property
    def reject_share(self) -> float:
        """Share of rejects among these (0 to 1)."""
        return self.rejects.total() / self.num_looked_at if self.num_looked_at else 0.0


def merged(parts: Sequence[Decoded]) -> Decoded:
    """Return what several processes have decoded."""
    return Decoded(
        in_turn([part.pace for part in parts]),
        sum((part.formats for part in parts), Counter()),
        tuple(size for part in parts for size in part.sizes),
        sum((part.rejects for part in parts), Counter()),
        next((part.example for part in parts if part.example is not None), None),
    )


class Readers(AbstractContextManager["Readers"]):
    """Processes that read and decode, each with a share of its own; they end with the block, or with this process."""

    def __init__(self, num_processes: int) -> None:
        self._stack = ExitStack()
        # Not forked: the engines' threads and Arrow's would not be there. One pool each, so that the process that has
        # read a share decodes it.
        spawn = multiprocessing.get_context("spawn")
        self._pools = [
            self._stack.enter_context(ProcessPoolExecutor(1, spawn, _end_with_parent)) for _ in range(num_processes)
        ]

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        self._stack.close()

    def read(self, source: Source, shares: Sequence[pa.Table], limits: Limits, seconds: float) -> list[Read]:
        """Read, one share a process; see `read_share`."""
        return self._all([partial(read_share, source, share, limits, seconds) for share in shares])

    def decode(self, preprocessing: Preprocessing, limits: Limits, seconds: float) -> list[Decoded]:
        """Decode what each process has read; see `decode_share`."""
        return self._all([partial(decode_share, preprocessing, limits, seconds)] * len(self._pools))

    def _all(self, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        futures = [pool.submit(call) for pool, call in zip(self._pools, calls, strict=True)]
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise ConfigError(
                "A process that read or decoded the sample has died: for want of memory, or of an image that kills its "
                "decoder. jobs.embed finds such an image and rejects it; leave it out here (--exclude)."
            ) from None


def _end_with_parent() -> None:
    """Make this process end with the one that started it, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def read_share(source: Source, refs: pa.Table, limits: Limits, seconds: float) -> Read:
    """Read a share of a sample as a read task reads a unit, for so many seconds or to its end.

    Raises:
        OSError: An image can't be read now.
        TransientError: Likewise.
    """
    global _kept
    _kept = Kept()
    with suppress(StopIteration):  # imports and connections are not what is measured
        next(_images(source, refs.slice(0, 1), limits, []))
    seen: list[Seen] = []
    count, num_bytes = 0, 0
    started, cpu = time.perf_counter(), time.process_time()
    for image in _images(source, refs, limits, seen):
        count, num_bytes = count + 1, num_bytes + _length(image)
        _kept.add(image)
        if time.perf_counter() - started > seconds:
            break
    pace = Pace(count, time.perf_counter() - started, time.process_time() - cpu, num_bytes)
    return Read(pace, tuple(seen))


def _length(image: Fetched) -> int:
    return 0 if isinstance(image.data, ImageReject) else len(image.data)


def _images(source: Source, refs: pa.Table, limits: Limits, seen: list[Seen]) -> Iterator[Fetched]:
    """Yield the images of a share; of containers whose number of images isn't known, their first ones."""
    if not source.containers:
        yield from source.read(refs, limits.max_bytes).images()
        return
    first_ones = max(_OF_A_CONTAINER, _OF_CONTAINERS // max(1, len(refs)))
    for place in range(len(refs)):
        ref = refs.slice(place, 1)
        known = ref["num_images"][0].as_py()
        most = first_ones if known is None else known
        images, count, num_bytes = source.read(ref, limits.max_bytes).images(), 0, 0
        for image in islice(images, most):
            count += 1
            num_bytes += _length(image)
            yield image
        if known is None:
            seen.append(Seen(ref["uri"][0].as_py(), count, num_bytes, whole=count < most))


def decode_share(preprocessing: Preprocessing, limits: Limits, seconds: float) -> Decoded:
    """Decode what this process has read, once to see what it is, and then again for what is left of the time."""
    decode = partial(decode_and_crop, preprocessing, limits)
    formats, rejects, sizes = Counter[str](), Counter[str](), []
    good: list[bytes] = []
    example = None
    started = time.perf_counter()
    for image in _kept.images:
        if time.perf_counter() - started > seconds and good:
            break
        try:
            if isinstance(image.data, ImageReject):
                raise image.data
            formats[sniff(image.data) or "unknown"] += 1
            _, (height, width) = decode(image.data)
        except ImageReject as reject:
            rejects[reject.code.value] += 1
            example = example or (image.uri, reject.message)
            continue
        sizes.append((width, height))
        good.append(image.data)
    pace = decode_for(cycle(good), decode, seconds) if good else in_turn([])
    return Decoded(pace, formats, tuple(sizes), rejects, example)


def decode_for(images: Iterable[bytes], decode: Decode, seconds: float) -> Pace:
    """Decode, resize and crop images for so many seconds, in this process.

    Args:
        images: Endless; all of them decode.
        decode: By which preprocessing and limits.
        seconds: How long.
    """
    count, num_bytes = 0, 0
    started, cpu = time.perf_counter(), time.process_time()
    for data in images:
        decode(data)
        count, num_bytes = count + 1, num_bytes + len(data)
        if time.perf_counter() - started >= seconds:
            break
    return Pace(count, time.perf_counter() - started, time.process_time() - cpu, num_bytes)
