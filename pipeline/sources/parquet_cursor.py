"""A place in an open Parquet file, from which its rows are read with few images in memory."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from itertools import accumulate
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.sources.rows import RowLayout
from pipeline.sources.slices import Slice
from pipeline.storage import Store

#: Rows of a batch, whose images are in memory together: at most so many, of about so many bytes on average.
BATCH_ROWS, BATCH_BYTES = 32, 32 * 2**20
#: Bytes of one read. Without a buffer, Arrow would read the images of a whole row group at once.
_BUFFER_BYTES = 8 * 2**20


class WatchedFile:
    """A file that remembers trouble in reading it: Arrow raises an `OSError` for damaged content too.

    Args:
        file: The file; closed with this one.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._trouble: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        try:
            return self._file.read(size)
        except Exception as error:
            self._trouble = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go somewhere else."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._file.closed

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def __del__(self) -> None:
        self._file.close()  # one that was left open for a slice that never came

    @contextlib.contextmanager
    def parsed(self) -> Iterator[None]:
        """Tell what goes wrong while Arrow reads it.

        Raises:
            pyarrow.ArrowInvalid: Its content is damaged.
            OSError: It can't be read.
        """
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:
            if isinstance(self._trouble, OSError):
                raise self._trouble from None
            if self._trouble is not None:  # a store's client has errors of its own
                trouble = f"{type(self._trouble).__name__}: {storage.scrub(str(self._trouble))}"
                raise OSError(errno.EIO, trouble) from self._trouble
            if isinstance(error, OSError):
                raise pa.ArrowInvalid(str(error)) from error
            raise


class Cursor:
    """A place in an open Parquet file.

    Nothing but the row groups from there on is read, and of them no more than is asked for, in the order of the file.

    Args:
        store: What holds the file.
        piece: The slice at whose first row it begins.
        layout: The columns that are read.

    Raises:
        FileNotFoundError: There is no such file.
    """

    def __init__(self, store: Store, piece: Slice, layout: RowLayout) -> None:
        self._file = WatchedFile(store.open(piece.container))
        self._container, self._version, self._row = piece.container, piece.version, piece.start
        self._layout, self._num_rows = layout, 0
        self._group_starts: list[int] = []
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._rest: pa.RecordBatch | None = None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def at_end(self) -> bool:
        """Whether all rows of the file have been taken."""
        return self._row >= self._num_rows

    def can_reach(self, piece: Slice) -> bool:
        """Return whether it stands at or before a slice's first row, within the same row group of the same file.

        Then to go on from there is cheaper than to read that row group again from its beginning.
        """
        if (self._container, self._version) != (piece.container, piece.version):
            return False
        group = max((start for start in self._group_starts if start <= piece.start), default=self._row)
        return group <= self._row <= piece.start

    def skip_to(self, row: int) -> None:
        """Pass over the rows before one."""
        for _ in self.take(row - self._row):
            pass

    def take(self, num_rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the next rows, each batch with the number of its first row; fewer where the file ends.

        Raises:
            ConfigError: The file has other columns than were planned.
            pyarrow.ArrowInvalid: The file is damaged.
            OSError: It can't be read.
        """
        end = self._row + num_rows
        while self._row < end:
            with self._file.parsed():
                if self._batches is None:
                    self._batches = self._opened()
                batch = next(self._batches, None) if self._rest is None else self._rest
            if batch is None:
                return
            taken = batch.slice(0, end - self._row)
            self._rest = batch.slice(len(taken)) if len(taken) < len(batch) else None
            self._row += len(taken)
            yield self._row - len(taken), taken

    def _opened(self) -> Iterator[pa.RecordBatch]:
        parquet = pq.ParquetFile(self._file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        self._layout.check(parquet.schema_arrow, self._container)
        footer, skip = parquet.metadata, self._row
        self._num_rows = footer.num_rows
        groups = list(range(footer.num_row_groups))
        lengths = [footer.row_group(group).num_rows for group in groups]
        self._group_starts = [0, *accumulate(lengths)][:-1]
        while groups and skip >= footer.row_group(groups[0]).num_rows:
            skip -= footer.row_group(groups.pop(0)).num_rows
        if not groups:
            return iter(())
        names = self._layout.types.names
        # One thread, since a read task is one core's work.
        batches = parquet.iter_batches(_batch_rows(footer, groups), groups, names, use_threads=False)
        return _after(batches, skip)


def _after(batches: Iterator[pa.RecordBatch], skip: int) -> Iterator[pa.RecordBatch]:
    """Yield what follows on so many rows."""
    for batch in batches:
        if skip < len(batch):
            yield batch.slice(skip)
        skip = max(0, skip - len(batch))


def _batch_rows(footer: pq.FileMetaData, groups: list[int]) -> int:
    """Return how many rows a batch may have, by the row group whose rows are the longest on average."""
    sizes = ((footer.row_group(group).total_byte_size, footer.row_group(group).num_rows) for group in groups)
    longest = max(int(num_bytes) // max(int(num_rows), 1) for num_bytes, num_rows in sizes)
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(longest, 1)))
