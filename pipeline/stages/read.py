"""Read and decode a unit."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import ImageReject
from pipeline.images import Limits, decode
from pipeline.preprocessing import Preprocessing
from pipeline.sources import Source
from pipeline.table import Table, Unit, unit_refs
from pipeline.table.schema import PLAN_SCHEMA

#: Waits in seconds between the attempts to read an image that may be readable later.
READ_BACKOFF_S = (0.1, 0.5, 2.0)

_OUTCOME = pa.schema(
    [
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("stage", pa.string()),
        ("code", pa.string()),
        ("message", pa.string()),
    ]
)


def read_unit(
    table: Table,
    unit: Unit,
    source: Source,
    preprocessing: Preprocessing,
    limits: Limits,
    backoff_s: tuple[float, ...] = READ_BACKOFF_S,
) -> pa.Table:
    """Read, decode, resize and crop a unit's images.

    Returns:
        A table with the columns of the unit's refs, ``sha256``, ``width``, ``height``, the outcome columns, ``read_s``
        and ``pixels``: fixed-size binary, uint8 of shape (crop, crop, 3), BGR, zeros for a reject.
    """
    start = time.perf_counter()
    refs = unit_refs(table, unit)
    side = preprocessing.crop
    pixels = np.zeros((len(refs), side, side, 3), np.uint8)
    rows: list[dict[str, Any]] = []
    trouble = None
    for i, uri in enumerate(refs["uri"].to_pylist()):
        row: dict[str, Any] = dict.fromkeys(_OUTCOME.names)
        rows.append(row)
        try:
            data = _read_with_retries(source, uri, limits.max_bytes, backoff_s)
            row["sha256"] = hashlib.sha256(data).hexdigest() if len(data) <= limits.max_bytes else None
            image = decode(data, limits)
            row["height"], row["width"] = image.shape[:2]
            pixels[i] = preprocessing.pixels(image)
        except ImageReject as reject:
            row.update(stage=reject.stage, code=reject.code.value, message=reject.message)
        except Exception as error:  # only a reject is permanent; whatever else happens, the unit is tried again later
            trouble = f"{uri} can't be read now: {type(error).__name__}: {error}"
            break
    rows.extend(dict.fromkeys(_OUTCOME.names) for _ in range(len(refs) - len(rows)))
    return _block(refs, rows, pixels, unit, trouble, time.perf_counter() - start)


def _block(
    refs: pa.Table,
    rows: list[dict[str, Any]],
    pixels: NDArray[np.uint8],
    unit: Unit,
    trouble: str | None,
    read_s: float,
) -> pa.Table:
    outcome = pa.Table.from_pylist(rows, schema=_OUTCOME)
    for name in _OUTCOME.names:
        refs = refs.append_column(name, outcome[name])
    length, side = pixels.shape[:2]
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(side * side * 3), length, [None, pa.py_buffer(pixels)])
    return (
        refs.append_column("plan", constant(unit.plan, pa.string(), length))
        .append_column("num_images", constant(unit.num_images, pa.int64(), length))
        .append_column("trouble", constant(trouble, pa.string(), length))
        .append_column("read_s", constant(read_s, pa.float64(), length))
        .append_column("pixels", column)
    )


def constant(value: Any, kind: pa.DataType, length: int) -> pa.Array:
    """Return an array that repeats one value."""
    return pa.repeat(pa.scalar(value, kind), length)


def _read_with_retries(source: Source, uri: str, max_bytes: int, backoff_s: tuple[float, ...]) -> bytes:
    for wait_s in backoff_s:
        try:
            return source.read(uri, max_bytes)
        except OSError:
            time.sleep(wait_s)
    return source.read(uri, max_bytes)


def read_block(
    unit: Unit, table: Table, source: Source, preprocessing: Preprocessing, limits: Limits
) -> Iterator[pa.Table]:
    """Read a unit as Ray Data wants it: as an iterator of blocks, here of one.

    Where not even the plan can be read, the block has one row that says so.
    """
    try:
        yield read_unit(table, unit, source, preprocessing, limits)
    except Exception as error:  # Ray would drop the block, and nobody would know why
        trouble = f"Unit {unit.number} can't be read now: {type(error).__name__}: {error}"
        row = {"uri": "", "version": "", "unit": unit.number, "label": None, "split": None}
        side = preprocessing.crop
        nothing = np.zeros((1, side, side, 3), np.uint8)
        refs = pa.Table.from_pylist([row], schema=PLAN_SCHEMA)
        yield _block(refs, [dict.fromkeys(_OUTCOME.names)], nothing, unit, trouble, 0.0)
