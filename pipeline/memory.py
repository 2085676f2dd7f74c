"""The way from the processes that read and commit to the run's content index, and to the vectors that it knows of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from pipeline import storage
from pipeline.stages.read import Embedded
from pipeline.table import Table, embeddings, read_file

logger = logging.getLogger(__name__)

#: Seconds that a read task waits for an answer, the loading of large tables included.
_ANSWER_TIMEOUT_S = 600.0


class ClusterMemory:
    """Finds embeddings by their images' content; see `pipeline.stages.read.Memory`.

    Args:
        companion: The run's companion (`pipeline.companion`), which holds the content index.
        tables: The tables that the index knows rows of.
    """

    def __init__(self, companion: Any, tables: Sequence[Table]) -> None:
        self._companion, self._tables = companion, tuple(tables)

    def find(self, sha256: Sequence[str]) -> list[Embedded | None]:
        """Return the embeddings of images that were embedded before."""
        try:
            places = ray.get(self._companion.find.remote(list(sha256)), timeout=_ANSWER_TIMEOUT_S)
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

    def add(self, uri: str, sha256: list[str]) -> None:
        """Note what a unit has committed, where it can be copied from."""
        if any(uri.startswith(f"{table.uri}/") for table in self._tables):
            self._companion.note.remote(uri, sha256)


@lru_cache(maxsize=4)
def _donor(table: Table, uri: str) -> pa.Table:
    return read_file(table, uri, ["sha256", "width", "height", "embedding"])
