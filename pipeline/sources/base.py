"""What a source promises, and how its bytes are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from pipeline.refs import ImageRef


class Source(Protocol):
    """A collection of images."""

    @property
    def skipped(self) -> Counter[str]:
        """Files passed over while listing, by the reason."""

    def refs(self) -> Iterator[ImageRef]:
        """Yield every image, in an order that depends on the names alone."""

    def read(self, uri: str, max_bytes: int) -> bytes:
        """Return an image's bytes, at most ``max_bytes`` + 1 of them.

        Raises:
            ImageReject: The image is gone although the source is there.
            OSError: It can't be read now.
        """
