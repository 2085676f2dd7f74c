"""List a source for a bounded time, choose a sample that is spread over it, and say how many images it has in all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.refs import REF_SCHEMA
from pipeline.sources import Source
from pipeline.storage import Store

#: Folders below each other that an extrapolation goes by; the deeper, the less it gains.
_DEPTH = 3
#: Bytes of a tar beside an image's own: its header and padding, and those of its label (512 each).
_TAR_BYTES = 2048

#: How the number of images is known. ``least``: there are more.
How = Literal["given", "listed", "extrapolated", "least"]


@dataclass(frozen=True, slots=True)
class Listed:
    """What was listed of a source.

    Args:
        refs: The refs.
        seconds: In what time.
        complete: Whether these are all.
    """

    refs: pa.Table
    seconds: float
    complete: bool

    @property
    def refs_per_s(self) -> float:
        """Refs in a second."""
        return len(self.refs) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of a container whose number of images its ref doesn't tell.

    Args:
        uri: Which one.
        images: How many images of it were read.
        num_bytes: Their length.
        whole: Whether these are all.
    """

    uri: str
    images: int
    num_bytes: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Count:
    """How many images a source has.

    Args:
        images: In all.
        listed: In the refs that were listed.
        how: How that is known.
    """

    images: int
    listed: int
    how: How


def list_for(source: Source, unit_size: int, seconds: float) -> Listed:
    """List a source from its beginning, for so many seconds or to its end.

    Raises:
        ConfigError: The source isn't there, or not as it was described.
        OSError: It can't be listed now.
    """
    parts: list[pa.Table] = []
    pa.array([""])  # the first array of a process imports pandas, for a second
    started, late, complete = time.perf_counter(), False, True
    for part in source.refs(unit_size):
        parts.append(part)
        if late:  # that there was one more part tells that the one before wasn't the last
            complete = False
            break
        late = time.perf_counter() - started > seconds
    took = time.perf_counter() - started
    return Listed(pa.concat_tables(parts) if parts else REF_SCHEMA.empty_table(), took, complete)


def spread(refs: pa.Table, most: int) -> pa.Table:
    """Return at most so many refs, evenly spread over all of them.

    They come in an order of chance, if always the same one: so what is read of them in the time is spread, too.
    """
    places = np.linspace(0, len(refs) - 1, min(most, len(refs))).round().astype(np.int64)
    return refs.take(pa.array(np.random.default_rng(0).permutation(places)))


def count_images(
    listed: Listed, seen: Sequence[Seen], size_of: Callable[[str], int | None], share: Callable[[], float | None]
) -> Count:
    """Count a source's images.

    Args:
        listed: What was listed of it.
        seen: What was read of containers.
        size_of: Returns a container's length in bytes, None where nobody knows.
        share: Returns the share of the source that was listed (0 to 1), None where nobody knows.
    """
    known = listed.refs["num_images"].drop_null()
    here, unknown, exact = float(np.sum(known.to_numpy())), len(listed.refs) - len(known), True
    if unknown:
        each = [_images_of(one, size_of) for one in seen]
        here += unknown * float(np.mean(each)) if each else unknown
        exact = len(each) == unknown and all(one.whole for one in seen)
    if listed.complete:
        return Count(round(here), round(here), "listed" if exact else "extrapolated")
    part = share()
    return Count(round(here / part), round(here), "extrapolated") if part else Count(round(here), round(here), "least")


def _images_of(seen: Seen, size_of: Callable[[str], int | None]) -> float:
    """Return a container's number of images: counted, or by its length if they go on as they began."""
    size = None if seen.whole or not seen.images else size_of(seen.uri)
    if size is None:
        return seen.images
    return max(seen.images, size / (seen.num_bytes / seen.images + _TAR_BYTES))


def share_of_folders(store: Store, root: str, last: str) -> float | None:
    """Return the share (0 to 1) of a folder tree that comes before a file, if all folders beside each other are alike.

    Args:
        store: What holds the tree.
        root: The tree.
        last: URI of the file, as a listing in the order of the names has come to it.

    Returns:
        None where the file lies in the root itself, of which nobody knows how much there is.
    """
    share, weight, folder = 0.0, 1.0, root
    for name in last.removeprefix(root.rstrip("/") + "/").split("/")[:-1][:_DEPTH]:
        names = store.list_names(folder)
        if name not in names:
            break
        share += weight * names.index(name) / len(names)
        weight /= len(names)
        folder = storage.join(folder, name)
    return share + weight / 2 if folder != root else None


def deal(refs: pa.Table, num_shares: int) -> list[pa.Table]:
    """Deal refs to so many workers, or fewer where there are fewer refs."""
    places = (range(start, len(refs), num_shares) for start in range(min(num_shares, len(refs))))
    return [refs.take(pa.array(list(each), pa.int64())) for each in places]
