"""Labelled embeddings, in memory or read from the table's files again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TransientError
from pipeline.heads.rows import Mask, Rows
from pipeline.table import read_file

#: Stored embeddings, float16 or float32, of shape (B, D).
Values = NDArray[np.float16] | NDArray[np.float32]
#: Embeddings of shape (B, D), and the places of their classes, int64 of shape (B,).
Block = tuple[Values, NDArray[np.int64]]

#: Rows of one block, where they lie in memory: enough for a matrix product to be fast, few enough for its results to be
#: in the processor's cache when they are used (8,192 took a logistic regression a fifth longer).
BLOCK_ROWS = 2048
#: Files that are read ahead of the computation.
_READ_AHEAD = 3


class Features(Protocol):
    """Embeddings with labels, of one part of a table."""

    @property
    def y(self) -> NDArray[np.int64]:
        """Each row's class, in the order of `blocks`: int64 of shape (N,)."""

    @property
    def embedding_dim(self) -> int:
        """D."""

    def __len__(self) -> int:
        """Return N."""

    def blocks(self) -> Iterator[Block]:
        """Yield all rows, in order."""

    def shuffled(self, batch_size: int, seed: int) -> Iterator[Block]:
        """Yield all rows in batches, in an order that the seed decides; the last batch may be smaller."""

    def only(self, keep: Mask) -> Features:
        """Return the features of some rows: ``keep`` is bool of shape (N,)."""


@dataclass(frozen=True)
class MemoryFeatures:
    """Features that lie in memory.

    Args:
        X: float16 or float32 of shape (N, D), as they are stored.
        y: int64 of shape (N,).
    """

    X: Values
    y: NDArray[np.int64]

    @property
    def embedding_dim(self) -> int:
        """D."""
        return int(self.X.shape[1])

    def __len__(self) -> int:
        return len(self.y)

    def blocks(self) -> Iterator[Block]:
        """Yield all rows, in order."""
        for start in range(0, len(self), BLOCK_ROWS):
            yield self.X[start : start + BLOCK_ROWS], self.y[start : start + BLOCK_ROWS]

    def shuffled(self, batch_size: int, seed: int) -> Iterator[Block]:
        """Yield all rows in batches, in an order that the seed decides."""
        order = np.random.default_rng(seed).permutation(len(self))
        for start in range(0, len(self), batch_size):
            rows = order[start : start + batch_size]
            yield self.X[rows], self.y[rows]

    def only(self, keep: Mask) -> MemoryFeatures:
        """Return the features of some rows."""
        return MemoryFeatures(self.X[keep], self.y[keep])


@dataclass(frozen=True)
class StreamedFeatures:
    """Features that are read from the table's files whenever they are asked for.

    Args:
        source: The table's rows.
        mask: bool of shape (all rows of the table,), those of this part.
        y: int64 of shape (N,).
        buffer_rows: Rows that `shuffled` has in memory and mixes: whole files, taken in a random order.
    """

    source: Rows
    mask: Mask
    y: NDArray[np.int64]
    buffer_rows: int

    @property
    def embedding_dim(self) -> int:
        """D."""
        return self.source.contract.embedding_dim

    def __len__(self) -> int:
        return len(self.y)

    def blocks(self) -> Iterator[Block]:
        """Yield all rows, in order: a block is what a file has of them."""
        yield from self._read(self._files())

    def shuffled(self, batch_size: int, seed: int) -> Iterator[Block]:
        """Yield all rows in batches, in an order that the seed decides: files at random, mixed within the buffer."""
        random = np.random.default_rng(seed)
        waiting: list[Block] = []
        held = 0
        files = random.permutation(self._files())
        for number, block in enumerate(self._read(files)):
            waiting.append(block)
            held += len(block[1])
            last = number == len(files) - 1
            if held < self.buffer_rows and not last:
                continue
            X, y = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
            waiting.clear()
            order = random.permutation(held)
            whole = held if last else held - held % batch_size
            for start in range(0, whole, batch_size):
                rows = order[start : start + batch_size]
                yield X[rows], y[rows]
            rows = order[whole:]
            held = len(rows)
            if held:
                waiting.append((X[rows], y[rows]))

    def only(self, keep: Mask) -> StreamedFeatures:
        """Return the features of some rows."""
        mask = self.mask.copy()
        mask[np.flatnonzero(self.mask)[~keep]] = False
        return StreamedFeatures(self.source, mask, self.y[keep], self.buffer_rows)

    def sample(self, seed: int) -> MemoryFeatures:
        """Read as many rows, chosen at random, as the buffer holds."""
        keep = np.zeros(len(self), bool)
        keep[np.random.default_rng(seed).permutation(len(self))[: self.buffer_rows]] = True
        return self.only(keep).loaded()

    def loaded(self) -> MemoryFeatures:
        """Read them into memory."""
        X = np.empty((len(self), self.embedding_dim), np.float16 if self.source.itemsize == 2 else np.float32)
        start = 0
        for part, y in self.blocks():
            X[start : start + len(y)] = part
            start += len(y)
        return MemoryFeatures(X, self.y)

    def _files(self) -> NDArray[np.int64]:
        """Return the places of the files that have rows of this part."""
        return np.flatnonzero(np.diff(self._starts()))

    def _starts(self) -> NDArray[np.int64]:
        """Return the number of this part's rows before each file: shape (F + 1,)."""
        counts = np.concatenate([[0], np.cumsum(self.mask)])
        starts: NDArray[np.int64] = counts[self.source.offsets]
        return starts

    def _read(self, places: Sequence[int] | NDArray[np.int64]) -> Iterator[Block]:
        starts = self._starts()
        ahead = [_readers().submit(self._file, int(place)) for place in places[:_READ_AHEAD]]
        try:
            for number, place in enumerate(places):
                X = ahead.pop(0).result()
                if number + _READ_AHEAD < len(places):
                    ahead.append(_readers().submit(self._file, int(places[number + _READ_AHEAD])))
                yield X, self.y[starts[place] : starts[place + 1]]
        finally:  # where nobody wants the rest
            for one in ahead:
                one.cancel()

    def _file(self, place: int) -> Values:
        uri = self.source.files[place]
        column = read_file(self.source.table, uri, ["embedding"])["embedding"]
        expected = int(self.source.offsets[place + 1] - self.source.offsets[place])
        if len(column) != expected:
            raise TransientError(
                f"Expected {expected} rows in {uri}, as when the training began, got {len(column)}: images were "
                "replaced or taken out meanwhile. Run the same command again."
            )
        mask = self.mask[self.source.offsets[place] : self.source.offsets[place + 1]]
        X = _stored(column, self.embedding_dim)
        return X if mask.all() else X[mask]


@cache
def _readers() -> ThreadPoolExecutor:
    """Return the threads that read files: the same for all passes, since each new one keeps memory for later."""
    return ThreadPoolExecutor(_READ_AHEAD, "read-features")


def _stored(column: Any, dim: int) -> Values:
    """Return an embedding column as it is stored, without a copy where it is in one piece."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim) for chunk in column.chunks if len(chunk)]
    result: Values = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    return result
