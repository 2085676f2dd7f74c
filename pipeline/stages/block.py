"""The block of a unit: one Arrow table with one row an image, as `pipeline.stages` describes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.refs import SOURCE_NAMES
from pipeline.stages.costs import Costs, with_costs
from pipeline.table import Unit

_OUTCOME = pa.schema(
    [
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("stage", pa.string()),
        ("code", pa.string()),
        ("message", pa.string()),
        ("copy_of", pa.int32()),
        ("vector", pa.binary()),
    ]
)
_NO_OUTCOME: dict[str, Any] = dict.fromkeys(_OUTCOME.names)


class Rows:
    """The images of a unit as they come in; the pixels of those to embed lie one behind the other."""

    def __init__(self, num_images: int) -> None:
        self.outcomes: list[dict[str, Any]] = []
        self.uris: list[str] = []
        self.first: dict[str, int] = {}
        self._lengths: list[int] = []
        self._encoded: list[bytes | None] = []
        self._data, self._used, self._expected = np.empty(0, np.uint8), 0, num_images

    def add(
        self,
        uri: str,
        outcome: dict[str, Any],
        pixels: NDArray[np.uint8] | None = None,
        encoded: bytes | None = None,
    ) -> None:
        """Add an image: what is known of it, and what is to be embedded of it, if anything: pixels, or the file."""
        self.uris.append(uri)
        self._encoded.append(encoded)
        self.outcomes.append(_NO_OUTCOME | outcome)
        self._lengths.append(0 if pixels is None else pixels.size)
        if pixels is not None:
            end = self._used + pixels.size
            if end > len(self._data):  # other memory, not more of the old, which would be filled with zeros first
                more = np.empty(max(end, self._expected * pixels.size, 2 * len(self._data)), np.uint8)
                more[: self._used] = self._data[: self._used]
                self._data = more
            self._data[self._used : end].reshape(pixels.shape)[...] = pixels  # no copy of a crop first
            self._used = end

    def pixel_column(self) -> pa.Array:
        """Return the pixels, one binary value an image, without copying them."""
        offsets = np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self._data[: self._used])]
        return pa.Array.from_buffers(pa.large_binary(), len(self._lengths), buffers)

    def encoded_column(self) -> pa.Array:
        """Return the files of the images that are still to be decoded, null for all others."""
        return pa.array(self._encoded, pa.large_binary())


def make_block(
    refs: pa.Table,
    known: pa.Table | None,
    rows: Rows,
    unit: Unit,
    trouble: str | None,
    costs: Costs,
    container: bool,
) -> pa.Table:
    """Put a unit's block together.

    Args:
        refs: The unit's rows of its plan.
        known: What the source knows of its images, row by row; None where it can't be read.
        rows: The images.
        unit: Which unit.
        trouble: Why the unit can't be read now, if so: the block is then one row that says so.
        costs: What reading and decoding took.
        container: Whether the unit's one ref is a file that holds all its images.
    """
    present = trouble is None and bool(rows.uris)
    if not present:  # one row that says so
        rows = Rows(1)
        rows.add("", {})
        known = None
    length = len(rows.uris)
    columns: dict[str, Any] = {
        "uri": pa.array(rows.uris, pa.string()),
        "label": pa.nulls(length, pa.string()) if known is None else known["label"].cast(pa.string()),
        "split": pa.nulls(length, pa.string()) if known is None else known["split"].cast(pa.string()),
    }
    if known is not None and known["uri"].to_pylist() != rows.uris:
        raise AssertionError("the source's rows are not those of its images")
    outcome = pa.Table.from_pylist(rows.outcomes, schema=_OUTCOME)
    columns.update(zip(_OUTCOME.names, outcome.columns, strict=True))
    extras = [] if known is None else [field for field in known.schema if field.name not in SOURCE_NAMES]
    if known is not None and extras:
        arrays = [known[field.name].combine_chunks() for field in extras]
        columns["extras"] = pa.StructArray.from_arrays(arrays, fields=extras)
    replaces = refs["replaces"].combine_chunks()
    if container or not present:  # of a container, all rows come from the one ref; and where there is none, it is null
        replaces = constant(replaces[0].as_py() if container else None, pa.string(), length)
    columns["replaces"] = replaces
    columns["pixels"], columns["encoded"] = rows.pixel_column(), rows.encoded_column()
    constants: list[tuple[str, Any, pa.DataType]] = [
        ("plan", unit.plan, pa.string()),
        ("unit", unit.number, pa.int64()),
        ("num_images", unit.num_images, pa.int64()),
        ("container", container, pa.bool_()),
        ("present", present, pa.bool_()),
        ("trouble", trouble, pa.string()),
    ]
    columns.update({name: constant(value, kind, length) for name, value, kind in constants})
    return with_costs(pa.table(columns), costs)


def constant(value: Any, kind: pa.DataType, length: int) -> pa.Array:
    """Return an array that repeats one value."""
    return pa.repeat(pa.scalar(value, kind), length)


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array: as it lies in the object store, where it is in one piece, without a copy."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
