"""How many images in one call are embedded fastest: tried once, and noted for the next time."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pipeline import storage

logger = logging.getLogger(__name__)

#: Of the best rate, this much is enough: smaller batches need less memory, and less is padded at the end of a unit.
_NEARLY = 0.97


def best_size(images_per_s: Callable[[int], float], sizes: Sequence[int]) -> int:
    """Return the smallest size that is nearly as fast as the fastest one.

    Args:
        images_per_s: Measures a size.
        sizes: What to try, from small to large, until the device's memory doesn't suffice.
    """
    rates: dict[int, float] = {}
    for size in sizes:
        try:
            rates[size] = images_per_s(size)
        except torch.cuda.OutOfMemoryError:
            break
    if not rates:  # the ring, which halves batches, begins with this one
        return sizes[0]
    logger.info("Images/s by batch size: %s.", ", ".join(f"{size}: {rate:.0f}" for size, rate in rates.items()))
    return next(size for size, rate in rates.items() if rate >= _NEARLY * max(rates.values()))


def remembered(find: Callable[[], int], what: Sequence[str], cache_dir: str | None) -> int:
    """Return a number that was found before, or find it and note it in the cache.

    Args:
        find: Finds it.
        what: All that it follows from.
        cache_dir: Folder of the cache; None: nothing is noted.
    """
    if cache_dir is None:
        return find()
    name = hashlib.sha256("\n".join(what).encode()).hexdigest()[:32]
    path = Path(cache_dir).expanduser() / "batch-sizes" / name
    with contextlib.suppress(OSError, ValueError):
        return max(1, int(path.read_text(encoding="ascii", errors="replace")))
    number = find()
    try:
        storage.LocalStore().replace(str(path), str(number).encode())
    except OSError as error:  # it saves time, and must never be why a run fails
        logger.warning("%s", storage.explained(error, "The best batch size can't be noted"))
    return number
