"""Read and decode a unit."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Protocol

import pyarrow as pa

from pipeline import storage
from pipeline.errors import ImageReject
from pipeline.failpoints import reach
from pipeline.images import Limits, Pixels
from pipeline.isolation import IsolatedDecoder
from pipeline.jpegs import size_for_gpu
from pipeline.preprocessing import Decode, Preprocessing, decode_and_crop
from pipeline.sources import Fetched, Source
from pipeline.stages.block import Rows, make_block
from pipeline.stages.costs import NO_COSTS, Costs, peak_bytes
from pipeline.table import Table, Unit, ref_columns, unit_refs

#: Images, and bytes of their files, that are looked up among the embedded ones at once: an answer takes the processors
#: half a millisecond.
_LOOK_UP_IMAGES, _LOOK_UP_BYTES = 512, 4 * 2**20


@dataclass(frozen=True, slots=True)
class Embedded:
    """An image that was embedded before.

    Args:
        width: Of the decoded image (pixels).
        height: Likewise.
        vector: Its embedding's bytes: float32 of shape (D,).
    """

    width: int
    height: int
    vector: bytes


class Memory(Protocol):
    """Finds embeddings by their images' content."""

    def find(self, sha256: Sequence[str]) -> list[Embedded | None]:
        """Return what is known of images, by the SHA-256 (hex) of their bytes."""


class Listener(Protocol):
    """Is told how the reading of a unit goes on."""

    def begin(self, unit: str) -> None:
        """Note that a unit is being read."""

    def images(self, count: int) -> None:
        """Count images that are read."""

    def end(self, unit: str) -> None:
        """Note that a unit is read."""


def _ignore(_: int) -> None:
    pass


def read_unit(
    table: Table,
    unit: Unit,
    source: Source,
    preprocessing: Preprocessing,
    limits: Limits,
    memory: Memory | None = None,
    on_images: Callable[[int], None] = _ignore,
    decode: Decode | None = None,
    for_gpu: bool = False,
    leave_small: bool = False,
) -> pa.Table:
    """Read, decode, resize and crop a unit's images.

    Args:
        table: Whose plan the unit is of.
        unit: Which one.
        source: Where its images are.
        preprocessing: From a decoded image to pixels.
        limits: What a single image may cost.
        memory: What has been embedded before; such images are not decoded.
        on_images: Called with a number of images whenever so many more are read.
        decode: From an image's bytes to its pixels, by this preprocessing and these limits; unset: in this process.
        for_gpu: Whether images that a GPU can decode are left to it.
        leave_small: Whether resizing small images is left to who embeds them, see `decode_and_crop`.

    Returns:
        The unit's block. For each image: uri, label, split; ``extras``, a struct of the extra columns, if there are
        any; sha256, width, height; the outcome columns; ``copy_of``, the row of the same image in this block;
        ``vector``, the embedding where it is known; ``pixels``, uint8 of shape (crop, crop, 3), BGR, or (height, width,
        3) of what is left small, or no bytes where there are none; ``encoded``, the file of an image that a GPU is to
        decode, else null. And on every row: plan, unit, num_images, container, replaces, trouble, costs; ``present`` is
        false on the one row of a unit that has no images.
    """
    start = time.perf_counter()
    reach("read", unit.name)
    decode = _Timed(decode or partial(decode_and_crop, preprocessing, limits, leave_small=leave_small))
    refs = unit_refs(table, unit)
    reading = source.read(ref_columns(refs), limits.max_bytes)
    rows = Rows(unit.num_images or 0)
    trouble, num_bytes = None, 0
    images = reading.images()
    while True:
        try:
            batch, batch_bytes = _some(images)
        except Exception as error:  # only a reject is permanent; whatever else happens, the unit is tried again later
            trouble = storage.explained(error, "The images can't be read now")
            break
        if not batch:
            break
        num_bytes += batch_bytes
        _take(rows, batch, decode, limits, memory, for_gpu, on_images)
    known = reading.rows() if trouble is None else None
    reach("decoded", unit.name)
    costs = Costs(
        read_s=time.perf_counter() - start,
        decode_s=decode.seconds,
        bytes_read=num_bytes,
        read_peak_bytes=peak_bytes(),
    )
    return make_block(refs, known, rows, unit, trouble, costs, source.containers)


def _some(images: Iterator[Fetched]) -> tuple[list[Fetched], int]:
    """Return the next images, as many as are looked up at once, and how many bytes they have."""
    some, num_bytes = [], 0
    for image in islice(images, _LOOK_UP_IMAGES):
        some.append(image)
        num_bytes += len(image.data) if isinstance(image.data, bytes) else 0
        if num_bytes >= _LOOK_UP_BYTES:
            break
    return some, num_bytes


class _Timed:
    """Decodes, and takes the time of it."""

    def __init__(self, decode: Decode) -> None:
        self._decode, self.seconds = decode, 0.0

    def __call__(self, data: bytes) -> tuple[Pixels, tuple[int, int]]:
        start = time.perf_counter()
        try:
            return self._decode(data)
        finally:
            self.seconds += time.perf_counter() - start


def _take(
    rows: Rows,
    batch: list[Fetched],
    decode: Decode,
    limits: Limits,
    memory: Memory | None,
    for_gpu: bool,
    on_images: Callable[[int], None],
) -> None:
    """Decode, or leave to the GPU, what is neither a reject, nor known from this unit or from another."""
    digests = [_sha256(image.data, limits) for image in batch]
    unknown = sorted({sha for sha in digests if sha is not None and sha not in rows.first})
    found = dict(zip(unknown, memory.find(unknown), strict=True)) if memory is not None and unknown else {}
    for place, sha in enumerate(digests):
        image = batch[place]
        batch[place] = Fetched(image.uri, b"")  # the bytes are needed no more
        if isinstance(image.data, ImageReject):
            rows.add(image.uri, _reject(image.data))
        elif sha is not None and sha in rows.first:
            rows.add(image.uri, {**rows.outcomes[rows.first[sha]], "copy_of": rows.first[sha], "vector": None})
        else:
            if sha is not None:
                rows.first[sha] = len(rows.uris)
            embedded = found.get(sha) if sha is not None else None
            if embedded is not None:
                rows.add(image.uri, {"sha256": sha, **asdict(embedded)})
            else:
                _decode(rows, image.uri, image.data, sha, decode, limits, for_gpu)
        on_images(1)


def _decode(rows: Rows, uri: str, data: bytes, sha: str | None, decode: Decode, limits: Limits, for_gpu: bool) -> None:
    try:
        pixels, size = None, size_for_gpu(data, limits) if for_gpu else None
        if size is None:
            pixels, size = decode(data)
        outcome = {"sha256": sha, "width": size[1], "height": size[0]}
        rows.add(uri, outcome, pixels, data if pixels is None else None)
    except ImageReject as reject:
        rows.add(uri, {"sha256": sha, **_reject(reject)})


def _sha256(data: bytes | ImageReject, limits: Limits) -> str | None:
    if isinstance(data, ImageReject) or len(data) > limits.max_bytes:
        return None
    return hashlib.sha256(data).hexdigest()


def _reject(reject: ImageReject) -> dict[str, str]:
    return {"stage": reject.stage, "code": reject.code.value, "message": reject.message}


def read_block(
    unit: Unit,
    table: Table,
    source: Source,
    preprocessing: Preprocessing,
    limits: Limits,
    memory: Memory | None = None,
    alone: Collection[str] = (),
    listener: Listener | None = None,
    for_gpu: bool = False,
    leave_small: bool = False,
) -> Iterator[pa.Table]:
    """Read a unit as Ray Data wants it: as an iterator of blocks, here of one.

    Where not even the plan can be read, the block has one row that says so. A unit that is named in ``alone`` has its
    images decoded in a process of their own, and none by a GPU. ``listener`` is told how it goes on; the rest is as in
    `read_unit`.
    """
    read = partial(read_unit, table, unit, source, preprocessing, limits, memory)
    if listener is not None:
        listener.begin(unit.name)
        read = partial(read, on_images=listener.images)
    try:
        if unit.name in alone:
            with IsolatedDecoder(preprocessing, limits) as decoder:
                block = read(decode=decoder)
        else:
            block = read(for_gpu=for_gpu, leave_small=leave_small)
    except Exception as error:  # Ray would drop the block, and nobody would know why
        trouble = storage.explained(error, f"Unit {unit.number} can't be read now")
        nothing = pa.table({"replaces": pa.nulls(1, pa.string()), "num_images": pa.nulls(1, pa.int32())})
        block = make_block(nothing, None, Rows(1), unit, trouble, NO_COSTS, source.containers)
    if listener is not None:
        listener.end(unit.name)
    yield block
