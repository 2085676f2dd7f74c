"""A map from 128-bit digests to numbers, in NumPy arrays: 24 bytes an entry, for tens of millions of entries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

#: One row a digest: its two halves.
Digests = NDArray[np.uint64]
Numbers = NDArray[np.int64]


def digests_of(values: pa.Array | pa.ChunkedArray) -> Digests:
    """Return a digest (BLAKE2b, 128 bits) of each value of a string or binary column.

    Returns:
        uint64 of shape (N, 2).
    """
    blake2b = hashlib.blake2b
    parts = [blake2b(value, digest_size=16).digest() for value in values.cast(pa.large_binary()).to_pylist()]
    return _from_bytes(b"".join(parts))


def digests_of_hex(values: Sequence[str]) -> Digests:
    """Return the first 128 bits of digests that are given as hex.

    Returns:
        uint64 of shape (N, 2).
    """
    return _from_bytes(bytes.fromhex("".join(value[:32] for value in values)))


def _from_bytes(data: bytes) -> Digests:
    return np.frombuffer(data, np.uint64).reshape(-1, 2) if data else np.zeros((0, 2), np.uint64)


def first_of_each(digests: Digests) -> NDArray[np.int64]:
    """Return the rows, in order, that no earlier row is equal to."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: of equal rows the first comes first
    ordered = digests[order]
    new = np.ones(len(digests), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return np.sort(order[new])


class DigestMap:
    """Maps digests to numbers from 0 up; entries are added in bulk and never removed.

    Entries lie in a few sorted runs, the larger ones first; adding merges runs of similar size, so that each entry is
    moved a logarithmic number of times and a lookup visits a logarithmic number of runs.
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(len(numbers) for _, _, numbers in self._runs)

    def find(self, digests: Digests) -> Numbers:
        """Look digests up.

        Args:
            digests: uint64 of shape (N, 2).

        Returns:
            int64 of shape (N,): the number of each, -1 for one that isn't there.
        """
        found = np.full(len(digests), -1, np.int64)
        order = np.argsort(digests[:, 0])  # in order, look-ups run through the memory of a large run but once
        asked, asked_rest = digests[order, 0], digests[order, 1]
        for first, rest, numbers in self._runs:
            places = np.searchsorted(first, asked)
            rows = np.arange(len(order))
            while len(rows):  # more than once only where the first halves of different digests agree
                rows = rows[places[rows] < len(first)]
                rows = rows[first[places[rows]] == asked[rows]]
                same = rest[places[rows]] == asked_rest[rows]
                found[order[rows[same]]] = numbers[places[rows[same]]]
                rows = rows[~same]
                places[rows] += 1
        return found

    def add(self, digests: Digests, numbers: Numbers) -> None:
        """Add entries whose digests are not there yet, and differ from each other."""
        if not len(digests):
            return
        self._runs.append(_sorted(digests[:, 0], digests[:, 1], numbers))
        while len(self._runs) > 1 and len(self._runs[-2][2]) < 2 * len(self._runs[-1][2]):
            columns = zip(*self._runs[-2:], strict=True)
            self._runs[-2:] = [_sorted(*(np.concatenate(column) for column in columns))]


#: First halves in order, second halves, numbers.
_Run = tuple[NDArray[np.uint64], NDArray[np.uint64], Numbers]


def _sorted(first: NDArray[np.uint64], rest: NDArray[np.uint64], numbers: Numbers) -> _Run:
    order = np.argsort(first, kind="stable")  # stable: merges what is sorted in parts
    return first[order], rest[order], numbers[order]


class GrowingArray:
    """A NumPy array that grows at its end."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._array: NDArray[Any] = np.zeros(1024, dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def values(self) -> NDArray[Any]:
        """Return what it holds; writing to it writes to the array."""
        return self._array[: self._length]

    def extend(self, values: NDArray[Any]) -> None:
        """Put more at the end."""
        needed = self._length + len(values)
        if needed > len(self._array):
            grown = np.zeros(max(needed, len(self._array) * 3 // 2), self._array.dtype)
            grown[: self._length] = self.values
            self._array = grown
        self._array[self._length : needed] = values
        self._length = needed
