"""Rows that hold image bytes in a column: slices of them as containers, and how a slice is read.

What Parquet files and Hugging Face datasets have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.errors import ConfigError, ImageReject, RejectCode
from pipeline.refs import REF_SCHEMA, SOURCE_NAMES
from pipeline.sources.base import Fetched
from pipeline.sources.paths import split_name
from pipeline.sources.rows import RowLayout, class_names, fields_of

#: Slices of one table of refs.
REFS_PER_TABLE = 1000

#: Rows, a few at a time, each time with the number of the first of them in its container.
Batches = Generator[tuple[int, pa.RecordBatch], None, None]


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of one part of a source that are read together.

    Args:
        container: The part's URI.
        version: The version of it that was planned.
        start: The first row.
        num_rows: How many.
    """

    container: str
    version: str
    start: int
    num_rows: int

    @property
    def uri(self) -> str:
        """The URI of the slice as a container."""
        return f"{self.container}#rows={self.start}+"

    @classmethod
    def of(cls, refs: pa.Table) -> Slice:
        """Return the slice that a unit is."""
        (ref,) = refs.select(["uri", "version", "num_images"]).to_pylist()
        container, _, start = ref["uri"].rpartition("#rows=")
        return cls(container, ref["version"], int(start.removesuffix("+")), ref["num_images"])


def slice_refs(parts: Iterable[tuple[str, str, int]], unit_size: int) -> Iterator[pa.Table]:
    """Yield refs of slices that don't cross the parts of a source.

    Args:
        parts: URI, version and number of rows of each.
        unit_size: Most rows of a slice.
    """
    slices: list[Slice] = []
    for container, version, num_rows in parts:
        for start in range(0, num_rows, unit_size):
            slices.append(Slice(container, version, start, min(unit_size, num_rows - start)))
            if len(slices) == REFS_PER_TABLE:
                yield _refs(slices)
                slices = []
    if slices:
        yield _refs(slices)


def _refs(slices: list[Slice]) -> pa.Table:
    nulls = pa.nulls(len(slices), pa.string())
    uris, versions = [each.uri for each in slices], [each.version for each in slices]
    arrays = [pa.array(uris), pa.array(versions), pa.array([each.num_rows for each in slices], pa.int32())]
    return pa.Table.from_arrays([*arrays, nulls, nulls], schema=REF_SCHEMA)


class RowReading:
    """A slice while it is read; see `pipeline.sources.base.Reading`.

    Args:
        piece: The slice.
        layout: Which columns are what.
        batches: Gives the slice's rows. An `ImageReject` that it raises is that of all the rows that are left.
        max_bytes: Longest image (bytes).
        split: The split of every row, where there is no column of splits.
        at_path: Reads the file that a row without bytes names; None where there is none.
    """

    def __init__(
        self,
        piece: Slice,
        layout: RowLayout,
        batches: Callable[[], Batches],
        max_bytes: int,
        split: str | None = None,
        at_path: Callable[[str], bytes | None] = lambda _: None,
    ) -> None:
        self._piece, self._layout, self._batches, self._max_bytes = piece, layout, batches, max_bytes
        self._split, self._at_path = split, at_path
        self._schema = pa.schema([REF_SCHEMA.field(name) for name in SOURCE_NAMES] + list(layout.schema))
        self._tables: list[pa.Table] = []
        self._num_given = 0

    def images(self) -> Iterator[Fetched]:
        """Yield every image, and for each row that can't be had its reject."""
        with closing(self._batches()) as batches:
            try:
                for first, batch in batches:
                    uris = [f"{self._piece.container}#row={first + i}" for i in range(len(batch))]
                    self._tables.append(self._rows(uris, batch))
                    for uri, data in zip(uris, self._data(batch), strict=True):
                        self._num_given += 1
                        yield Fetched(uri, data)
            except ImageReject as reject:
                numbers = range(self._piece.start + self._num_given, self._piece.start + self._piece.num_rows)
                uris = [f"{self._piece.container}#row={number}" for number in numbers]
                nothing: dict[str, list[str | None]] = {name: [None] * len(uris) for name in self._schema.names}
                self._tables = [self.rows(), pa.table({**nothing, "uri": uris}, schema=self._schema)]
                self._num_given += len(uris)
                for uri in uris:
                    yield Fetched(uri, reject)

    def rows(self) -> pa.Table:
        """Return labels, splits and extra columns of the images."""
        tables = self._tables or [self._schema.empty_table()]
        return pa.concat_tables(tables).slice(0, self._num_given)

    def _data(self, batch: pa.RecordBatch) -> Iterator[bytes | ImageReject]:
        images = _plain(batch, self._layout.image, self._layout)
        fields = fields_of(images.type)
        values = pc.struct_field(images, "bytes") if fields else images
        paths = pc.struct_field(images, "path") if "path" in fields else pa.nulls(len(images))
        for value, path in zip(values, paths, strict=True):  # scalars: the bytes stay where they are
            if value.is_valid:
                yield value.as_buffer()[: self._max_bytes + 1].to_pybytes()
            elif not path.is_valid:
                yield ImageReject("read", RejectCode.MISSING, "The row has no image: it is null.")
            else:
                data = self._at_path(path.as_py())
                reason = f"The row has no bytes (path {storage.redact(path.as_py())})."
                yield ImageReject("read", RejectCode.MISSING, reason) if data is None else data

    def _rows(self, uris: list[str], batch: pa.RecordBatch) -> pa.Table:
        layout, nothing = self._layout, pa.nulls(len(batch), pa.string())
        labels = nothing if layout.label is None else self._names(batch, layout.label)
        if layout.split is not None:
            names = self._names(batch, layout.split).to_pylist()
            splits = pa.array([split_name(name) for name in names], pa.string())
        else:
            splits = pa.repeat(pa.scalar(self._split, pa.string()), len(batch))
        arrays = [pa.array(uris, pa.string()), labels, splits]
        arrays += [_plain(batch, column, layout) for column, _ in layout.extras]
        if layout.path:
            paths = pc.struct_field(_plain(batch, layout.image, layout), "path")
            arrays.append(paths.cast(pa.string()))
        return pa.Table.from_arrays(arrays, schema=self._schema)

    def _names(self, batch: pa.RecordBatch, column: str) -> pa.Array:
        """Return a column of labels or splits as strings, class names in place of their numbers."""
        values, names = _plain(batch, column, self._layout), class_names(batch.schema, column)
        if names is None:
            return values.cast(pa.string())
        values = values.cast(pa.int64())
        numbers = pc.if_else(pc.equal(values, -1), None, values)  # -1: unknown, as in the test splits of the hub
        last = pc.min_max(numbers).as_py()
        if last["min"] is not None and not 0 <= last["min"] <= last["max"] < len(names):
            raise ConfigError(
                f"Expected numbers of {len(names)} class names in column {column!r} of {self._piece.container}, "
                f"got {last['min']} to {last['max']} near row {self._piece.start}. Correct it, or don't use it as "
                "a label or split (--label-from none, --split-from none)."
            )
        return pa.array(names, pa.string()).take(numbers)


def _plain(batch: pa.RecordBatch, column: str, layout: RowLayout) -> pa.Array:
    """Return a column as the layout has its type: dictionaries decoded, extensions as what they are stored as."""
    array, kind = batch.column(column), layout.types.field(column).type
    return array if array.type == kind else array.cast(kind)
