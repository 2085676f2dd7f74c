"""The content index: which images have been embedded already, by the SHA-256 of their bytes.

It holds 24 bytes an image; the vectors stay in the tables' files, and whoever needs one copies it from there. What
units commit during the run is added, so that an image which occurs in several of them is embedded once, but for units
that are at work at the same moment. It saves work and decides nothing: where it is lost, images are embedded again.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.digests import DigestMap, digests_of_hex, first_of_each
from pipeline.table import Table, iter_files

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
