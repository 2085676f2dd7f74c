"""What a source is: it lists refs, says which columns it adds, and reads the images that a unit promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipeline.errors import ImageReject


@dataclass(frozen=True, slots=True)
class Fetched:
    """One image of a unit.

    Args:
        uri: Where it is.
        data: Its bytes, at most the limit + 1 of them; or why it can never be had.
    """

    uri: str
    data: bytes | ImageReject


class Reading(Protocol):
    """A unit while it is read: first its images one by one, then what the source knows of them."""

    def images(self) -> Iterator[Fetched]:
        """Yield every image of the unit once; no more than a few are in memory at a time.

        Raises:
            OSError: One can't be read now.
            TransientError: The source can't be read now.
        """

    def rows(self) -> pa.Table:
        """Return one row for each image that `images` yielded, in that order: `SOURCE_NAMES`, then extra columns."""


class Source(Protocol):
    """A collection of images. Travels to the processes that read, so it holds names and options, nothing open."""

    @property
    def identity(self) -> str:
        """What tells this source from others of the same table: its format and its URI without secrets."""

    @property
    def containers(self) -> bool:
        """Whether a ref is a container, a unit of its own, rather than one image."""

    @property
    def skipped(self) -> Counter[str]:
        """What was passed over while listing, by the reason."""

    def columns(self) -> pa.Schema:
        """Return the extra columns that the source is known to add, by their names in the table.

        Raises:
            ConfigError: The source isn't there, or not as it was described.
        """

    def refs(self, unit_size: int) -> Iterator[pa.Table]:
        """List the source, as tables of `pipeline.refs.REF_SCHEMA` and the extra columns of images.

        The order depends on the names alone, and tables are small, so that a million refs are never in memory at once.

        Args:
            unit_size: Images that a container may hold at most, where the source itself cuts containers out of files.
        """

    def read(self, refs: pa.Table, max_bytes: int) -> Reading:
        """Begin to read a unit.

        Args:
            refs: What it promises: rows that `refs` gave.
            max_bytes: Longest image (bytes).
        """
