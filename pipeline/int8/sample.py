"""A sample of a source's images, the same ones every time."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.digests import digests_of
from pipeline.errors import ImageReject
from pipeline.images import Limits, Pixels
from pipeline.isolation import IsolatedDecoder
from pipeline.preprocessing import Preprocessing
from pipeline.refs import REF_SCHEMA
from pipeline.sources import Source

logger = logging.getLogger(__name__)

#: Containers that are opened, at most: each is read from its start.
_MOST_CONTAINERS = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """Some images of a source, in the order of their digests.

    Args:
        pixels: uint8 of shape (N, H, W, 3), BGR.
        sha256: N digests (hex) of the images' bytes, all different.
        labels: N class names; None where an image has none.
    """

    pixels: Pixels
    sha256: tuple[str, ...]
    labels: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.sha256)

    def halves(self) -> tuple[Sample, Sample]:
        """Return two samples without a common image."""
        cut = len(self) // 2
        return tuple(  # type: ignore[return-value]
            Sample(self.pixels[part], self.sha256[part], self.labels[part]) for part in (slice(cut), slice(cut, None))
        )

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the images and their labels."""
        return hashlib.sha256(repr(list(zip(self.sha256, self.labels, strict=True))).encode()).hexdigest()


def draw_sample(
    source: Source, count: int, preprocessing: Preprocessing, limits: Limits, unit_size: int, limit: int | None
) -> Sample:
    """Take images from all over a source, as its listing is read: those whose URIs have the smallest digests.

    So a choice neither depends on the order of the listing, nor does it change much when images come or go. Of a source
    of containers, some are chosen so, and of each the first images are taken. An image that can't be decoded is left
    out; decoding is done in a process of its own, as an image may end that.

    Args:
        source: Where the images are.
        count: How many to take; fewer where there aren't so many, or a container has less than its share.
        preprocessing: From a decoded image to pixels.
        limits: What a single image may cost.
        unit_size: As for `pipeline.sources.Source.refs`.
        limit: Take them from so many first refs only; None for all.

    Raises:
        ConfigError: The source isn't there, or not as it was described.
        TransientError: It can't be read now.
        OSError: Likewise.
    """
    source.columns()  # says what is wrong with the source, if anything
    refs = _chosen(_first(source.refs(unit_size), limit), min(count, _MOST_CONTAINERS) if source.containers else count)
    found: dict[str, tuple[Pixels, str | None]] = {}
    with IsolatedDecoder(preprocessing, limits) as decoder:
        parts = [refs.slice(place, 1) for place in range(len(refs))] if source.containers else [refs]
        for place, part in enumerate(parts):
            wanted = -(-(count - len(found)) // (len(parts) - place))  # of each container about as many
            for sha, pixels, label in _images(source, part, decoder, limits, wanted):
                found.setdefault(sha, (pixels, label))
    logger.info("%d images of the source are the sample.", len(found))
    order = sorted(found)
    side = preprocessing.crop
    pixels = np.stack([found[sha][0] for sha in order]) if order else np.zeros((0, side, side, 3), np.uint8)
    return Sample(pixels, tuple(order), tuple(found[sha][1] for sha in order))


def _first(parts: Iterable[pa.Table], limit: int | None) -> Iterator[pa.Table]:
    left = limit
    for part in parts:
        yield part if left is None else part.slice(0, left)
        if left is not None:
            left -= min(left, len(part))
            if not left:
                return


def _chosen(parts: Iterable[pa.Table], count: int) -> pa.Table:
    """Return the refs whose URIs have the smallest digests, in the order of the listing."""
    kept, keys = REF_SCHEMA.empty_table(), np.zeros(0, np.uint64)
    for part in parts:
        kept = pa.concat_tables([kept, part], promote_options="default")
        keys = np.concatenate([keys, digests_of(part["uri"])[:, 0]])
        best = np.sort(np.argsort(keys, kind="stable")[:count])
        kept, keys = kept.take(best), keys[best]
    return kept


def _images(
    source: Source, refs: pa.Table, decoder: IsolatedDecoder, limits: Limits, wanted: int
) -> Iterator[tuple[str, Pixels, str | None]]:
    """Yield SHA-256, pixels and label of some refs' images."""
    reading = source.read(refs, limits.max_bytes)
    decoded: dict[str, tuple[str, Pixels]] = {}
    for image in reading.images():
        if isinstance(image.data, ImageReject):
            continue
        try:
            decoded[image.uri] = hashlib.sha256(image.data).hexdigest(), decoder(image.data)[0]
        except ImageReject:
            continue
        if len(decoded) == wanted:
            break
    rows = reading.rows()
    labels = dict(zip(rows["uri"].to_pylist(), rows["label"].to_pylist(), strict=True))
    for uri, (sha, pixels) in decoded.items():
        yield sha, pixels, labels.get(uri)
