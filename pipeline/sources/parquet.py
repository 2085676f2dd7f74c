"""Parquet files with the bytes of images in a column; a unit is a slice of one file's rows."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import ConfigError, ImageReject, RejectCode, TransientError
from pipeline.sources.absence import absent
from pipeline.sources.base import Reading
from pipeline.sources.parquet_cursor import Cursor, WatchedFile
from pipeline.sources.patterns import FilePattern, split_by_name
from pipeline.sources.rows import RowLayout, RowOptions, layout_of
from pipeline.sources.slices import Batches, RowReading, Slice, slice_refs
from pipeline.storage import FileInfo, Store

#: Footers on their way at once.
CONCURRENT_FOOTERS = 16
#: Suffixes of the files that are read.
PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")


class ParquetSource:
    """Rows of Parquet files, which must agree in the columns that are read.

    A Hugging Face dataset in the layout of the hub is read so too: its images are structs of bytes and path, and its
    labels numbers, whose class names stand in the files' metadata.

    Args:
        pattern: A file; a folder, for every .parquet file below it; or a pattern of either with ``*``, ``**``, ``?``,
            ``[…]``, ``{a,b}`` or ``{000..099}``; see `pipeline.sources.patterns.FilePattern`.
        store: What holds them.
        image_column: As for `pipeline.sources.rows.RowOptions`, like the rest.
        label_from: Column of labels.
        split_from: Column of splits. Where ``auto`` finds none, a file whose name begins with a split's
            (train-00000-of-00010.parquet), or whose folder is named so, is of that split.
        columns: Other columns that travel into the table.
    """

    containers = True

    def __init__(
        self,
        pattern: str,
        store: Store | None = None,
        image_column: str | None = None,
        label_from: str = "auto",
        split_from: str = "auto",
        columns: str = "all",
    ) -> None:
        place = storage.absolute(pattern)
        self._pattern = storage.local_uri(place) if storage.scheme(place) == "file" else place
        self._store = store or storage.store_for(place)
        self._files = FilePattern(place, self._store, PARQUET_SUFFIXES, "Parquet files")
        self._options = RowOptions(image_column, label_from, split_from, columns)
        self._layout: RowLayout | None = None
        self._parked: deque[Cursor] = deque(maxlen=1)
        self.skipped: Counter[str] = Counter()

    def __reduce__(self) -> tuple[Any, ...]:
        # Nothing open travels; and a process that is sent the same source again goes on with the one that it has.
        return _in_this_process, (self._pattern, self._store, self._options, self._layout)

    @property
    def identity(self) -> str:
        """What tells this source from others."""
        return f"parquet {self._pattern}"

    def columns(self) -> pa.Schema:
        """Return the columns that travel, by the footer of the first file that has rows."""
        return self._decided().schema

    def refs(self, unit_size: int) -> Iterator[pa.Table]:
        """Yield slices of every file, from the footers alone, and check the columns of each."""
        self._layout = None  # the files may have changed since
        yield from slice_refs(self._parts(self._decided()), unit_size)

    def read(self, refs: pa.Table, max_bytes: int) -> Reading:
        """Begin to read a slice; one that follows the last one that was read goes on where that ended."""
        piece, layout = Slice.of(refs), self._decided()
        split = split_by_name(piece.container) if self._options.split_from == "auto" else None
        return RowReading(piece, layout, lambda: self._batches(piece, layout), max_bytes, split)

    def _decided(self) -> RowLayout:
        if self._layout is None:
            for info in self._files.found(Counter()):  # a file without rows often has columns without types
                schema, num_rows = self._footer(info)
                if num_rows:
                    break
            self._layout = layout_of(schema, self._options, info.uri)
        return self._layout

    def _parts(self, layout: RowLayout) -> Iterator[tuple[str, str, int]]:
        self.skipped.clear()
        files = self._files.found(self.skipped)
        with ThreadPoolExecutor(CONCURRENT_FOOTERS, thread_name_prefix="footer") as pool:
            while group := list(islice(files, 4 * CONCURRENT_FOOTERS)):
                for info, (schema, num_rows) in zip(group, pool.map(self._footer, group), strict=True):
                    if num_rows:
                        layout.check(schema, info.uri)
                    yield info.uri, info.version, num_rows

    def _footer(self, info: FileInfo) -> tuple[pa.Schema, int]:
        with closing(WatchedFile(self._store.open(info.uri))) as file:
            try:
                with file.parsed():
                    footer = pq.ParquetFile(file)
            except pa.ArrowInvalid as error:
                raise ConfigError(
                    f"Expected a Parquet file at {info.uri}, but its footer can't be read: {error}. "
                    "Write the file again, or leave it out of --source."
                ) from None
            return footer.schema_arrow, footer.metadata.num_rows

    def _batches(self, piece: Slice, layout: RowLayout) -> Batches:
        """Yield the rows of a slice, and leave the file open at its end for the slice that may follow."""
        cursor = self._cursor(piece, layout)
        parked = False
        try:
            yield from cursor.take(piece.num_rows)
            parked = not cursor.at_end
        except pa.ArrowInvalid as error:
            info = self._store.info(piece.container)
            if info is None or info.version != piece.version:
                raise TransientError(f"{piece.container} changed while it was read. Run again.") from error
            raise ImageReject("read", RejectCode.UNDECODABLE, f"The Parquet file is damaged: {error}") from None
        finally:
            if parked:
                self._parked.append(cursor)
            else:
                cursor.close()

    def _cursor(self, piece: Slice, layout: RowLayout) -> Cursor:
        with contextlib.suppress(IndexError):  # taken away: two readings never share one
            cursor = self._parked.pop()
            if cursor.can_reach(piece):
                cursor.skip_to(piece.start)
                return cursor
            cursor.close()
        try:
            return Cursor(self._store, piece, layout)
        except Exception as error:
            reject = absent(error, self._store, storage.holder(piece.container))
            if reject is None:
                raise
            raise reject from None


@lru_cache(maxsize=4)
def _in_this_process(pattern: str, store: Store, options: RowOptions, layout: RowLayout | None) -> ParquetSource:
    source = ParquetSource(pattern, store)
    source._options, source._layout = options, layout
    return source
