"""Parts of a table's rows to fit, choose and measure by: by split, or held out by content."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.digests import Digests
from pipeline.heads.rows import Mask


def held_out(content: Digests, label: NDArray[np.int32], mask: Mask, fraction: float, seed: int, salt: int = 0) -> Mask:
    """Take a stratified part of some rows, chosen by content.

    In each class, images are put in the order of a hash of their content and the seed, and the first ``fraction`` of
    them, rounded up but never all, are taken. Identical images share a hash, so they stay on one side: those of several
    classes are taken if they are among the first of each. Which side an image of one class is on doesn't depend on
    which other classes there are, nor on the order of the rows.

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
    order, classes = _mixed(content[rows], seed, salt), label[rows]
    by_class = np.lexsort((order, classes))
    new = np.ones(len(rows), bool)
    new[1:] = (np.diff(order[by_class]) != 0) | (np.diff(classes[by_class]) != 0)
    images = by_class[new]  # a row of each image of each class
    _, first, counts = np.unique(classes[images], return_index=True, return_counts=True)
    # Less a little, since 0.07 * 100 is above 7.
    shares = np.minimum(np.ceil(fraction * counts - 1e-9), counts - 1)
    rank = np.arange(len(images)) - np.repeat(first, counts)
    stay = order[images[rank >= np.repeat(shares, counts)]]
    taken = np.zeros(len(mask), bool)
    taken[rows] = ~np.isin(order, stay)
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
