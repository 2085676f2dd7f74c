"""Parts of a table's rows to fit, choose and measure by: by split, or held out by content."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.digests import Digests
from pipeline.heads.rows import Mask


def held_out(content: Digests, label: NDArray[np.int32], mask: Mask, fraction: float, seed: int, salt: int = 0) -> Mask:
    """Take a stratified part of some rows, chosen by content.

    In each class, images are put in the order of a hash of their content and the seed, and the first ``fraction`` of
    them, rounded up but never all, are taken. Identical images share a hash, so they stay on one side, whatever their
    labels; which side an image is on doesn't depend on which other classes there are, nor on the order of the rows.

    Args:
        content: uint64 of shape (N, 2).
        label: int32 of shape (N,).
        mask: bool of shape (N,), the rows to take from.
        fraction: Share of each class, 0 to 1.
        seed: Another seed takes others.
        salt: Parts with other salts are chosen independently of each other.

    Returns:
        bool of shape (N,), true for what is taken.
    """
    rows = np.flatnonzero(mask)
    taken = np.zeros(len(mask), bool)
    if not len(rows):
        return taken
    order = _mixed(content[rows], seed, salt)
    by_class = np.lexsort((order, label[rows]))
    first_of_class = {}
    decided: dict[int, bool] = {}
    starts = np.flatnonzero(np.diff(label[rows][by_class], prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        hashes = np.unique(order[by_class[start:end]])
        count = min(math.ceil(fraction * len(hashes)), len(hashes) - 1)
        first_of_class[start] = count
        for rank, value in enumerate(hashes.tolist()):
            decided.setdefault(value, rank < count)
    taken[rows] = [decided[value] for value in order.tolist()]
    return taken


def in_random_order(content: Digests, seed: int, salt: int = 0) -> NDArray[np.uint64]:
    """Return a number for each row that orders contents at random, the same for equal contents."""
    return _mixed(content, seed, salt)


def _mixed(content: Digests, seed: int, salt: int) -> NDArray[np.uint64]:
    """Return a hash of contents and a seed: the finaliser of SplitMix64 (Steele, Lea and Flood 2014) on both halves."""
    with np.errstate(over="ignore"):
        value = content[:, 0] ^ _splitmix(content[:, 1] + _splitmix(np.asarray(seed + (salt << 32), np.uint64)))
        return _splitmix(value)


def _splitmix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        value = (value + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        result: NDArray[np.uint64] = value ^ (value >> np.uint64(31))
        return result
