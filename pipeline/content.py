"""The content cache: which images have been embedded already, by the SHA-256 of their bytes.

One actor of the cluster knows the digests, 24 bytes an image; the vectors stay in the tables' files, and whoever needs
one copies it from there. What units commit during the run is added, so that an image which occurs in several of them is
embedded once, but for units that are at work at the same moment. It saves work and decides nothing: where the actor is
lost, images are embedded again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from pipeline import storage
from pipeline.digests import DigestMap, digests_of_hex, first_of_each
from pipeline.stages.read import Embedded
from pipeline.table import Table, embeddings, iter_files, read_file

logger = logging.getLogger(__name__)

#: Seconds that a read task waits for an answer, the loading of large tables included.
_ANSWER_TIMEOUT_S = 600.0
#: Rows of one data file, at most, as far as an entry's number goes.
_MAX_ROWS = 2**24


class ContentIndex:
    """Where the embedding of an image's content lies: data file and row.

    Args:
        tables: Tables whose rows it knows from the start.
    """

    def __init__(self, tables: Sequence[Table] = ()) -> None:
        self._files: list[str] = []
        self._map = DigestMap()
        for table in tables:
            for uri, rows in iter_files(table, ["sha256"]):
                self.add(uri, rows["sha256"].to_pylist())

    def __len__(self) -> int:
        return len(self._map)

    def add(self, uri: str, sha256: Sequence[str]) -> None:
        """Note the rows of a data file, in order."""
        digests = digests_of_hex(sha256)
        rows = first_of_each(digests)
        rows = rows[self._map.find(digests[rows]) < 0]
        self._map.add(digests[rows], len(self._files) * _MAX_ROWS + rows)
        self._files.append(uri)

    def find(self, sha256: Sequence[str]) -> list[tuple[str, int] | None]:
        """Return data file and row for each digest (hex)."""
        numbers = self._map.find(digests_of_hex(sha256)).tolist()
        return [None if n < 0 else (self._files[n // _MAX_ROWS], n % _MAX_ROWS) for n in numbers]


class ClusterMemory:
    """The way to a cluster's content index from the processes that read and commit; see `stages.read.Memory`."""

    def __init__(self, actor: Any, tables: Sequence[Table]) -> None:
        self._actor, self._tables = actor, tuple(tables)

    def find(self, sha256: Sequence[str]) -> list[Embedded | None]:
        """Return the embeddings of images that were embedded before."""
        try:
            places = ray.get(self._actor.find.remote(list(sha256)), timeout=_ANSWER_TIMEOUT_S)
            return [
                None if place is None else self._read(place, sha) for place, sha in zip(places, sha256, strict=True)
            ]
        except Exception:  # it saves work, and must never be why a unit fails
            storage.log_traceback(logger, "The content cache can't be used; images are embedded again.")
            return [None] * len(sha256)

    def _read(self, place: tuple[str, int], sha256: str) -> Embedded | None:
        uri, row = place
        table = next(table for table in self._tables if uri.startswith(f"{table.uri}/"))
        rows = _donor(table, uri)
        if row >= len(rows) or rows["sha256"][row].as_py() != sha256:
            return None  # rows were taken out of that file meanwhile
        vector = embeddings(rows["embedding"].slice(row, 1))[0]
        if not np.isfinite(vector).all():
            return None
        return Embedded(rows["width"][row].as_py(), rows["height"][row].as_py(), vector.tobytes())

    def close(self) -> None:
        """End the index."""
        ray.kill(self._actor)

    def add(self, uri: str, sha256: list[str]) -> None:
        """Note what a unit has committed, where it can be copied from."""
        if any(uri.startswith(f"{table.uri}/") for table in self._tables):
            self._actor.add.remote(uri, sha256)


@lru_cache(maxsize=4)
def _donor(table: Table, uri: str) -> pa.Table:
    return read_file(table, uri, ["sha256", "width", "height", "embedding"])


def start_memory(tables: Sequence[Table]) -> ClusterMemory:
    """Start the content index of a run on the connected cluster, and let it read the tables' digests.

    Args:
        tables: Tables of the same features to copy from; that which the run writes among them.
    """
    # The tables are read in the constructor, since questions of several processes keep no order among each other.
    actor: Any = ray.remote(ContentIndex).options(num_cpus=0, max_restarts=0).remote(tables)
    return ClusterMemory(actor, tables)
