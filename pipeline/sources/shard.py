"""Group the members of a tar into samples: what they are fetched as, and what becomes a reject."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from pipeline.errors import ConfigError, ImageReject, RejectCode
from pipeline.sources.base import Fetched
from pipeline.sources.members import is_hidden, is_image, key_and_field, refusal
from pipeline.sources.tar import TarReader
from pipeline.storage import printable

#: Longest field that is kept, and all fields of a tar: they are in memory until it has been read.
MAX_FIELD_BYTES, MAX_FIELDS_BYTES = 16 * 2**20, 2 * 2**30


@dataclass(slots=True)
class Sample:
    """The members that share a key.

    Args:
        num_images: Images among them.
        is_refused: Whether an image among them is of a kind that is never read.
        counts: How often each other field is there.
        again: Name of the second member that is the same field.
        values: The first of each field that is wanted; None where it is longer than `MAX_FIELD_BYTES`.
    """

    num_images: int = 0
    is_refused: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    again: dict[str, str] = field(default_factory=dict)
    values: dict[str, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where something that was fetched comes from.

    Args:
        uri: Its URI, unique in its shard.
        name: The member's name, or the sample's key; empty for the shard itself.
        sample: What belongs to it, whole once the shard has been read; None for a reject that is no sample's image.
    """

    uri: str
    name: str
    sample: Sample | None


class Shard:
    """A tar while it is grouped into samples.

    Args:
        uri: Its URI.
        max_bytes: Longest image (bytes).
        is_wanted: Whether a field is to be kept.

    Attributes:
        places: Where each `Fetched` comes from, in their order.
    """

    def __init__(self, uri: str, max_bytes: int, is_wanted: Callable[[str], bool]) -> None:
        self.places: list[Place] = []
        self._uri, self._max_bytes, self._is_wanted = uri, max_bytes, is_wanted
        self._samples: dict[str, Sample] = {}
        self._uris: set[str] = set()
        self._same: Counter[str] = Counter()
        self._kept_bytes = 0
        self._at: tuple[str, Sample | None] = "", None  # what is being read

    def images(self, file: IO[bytes]) -> Iterator[Fetched]:
        """Yield every image as it comes, one in memory at a time; then what is wrong with samples, and the tar.

        Raises:
            OSError: The storage is in trouble.
            ConfigError: The fields don't fit into memory.
        """
        damage = None
        try:
            tar = TarReader(file)
            for member in tar:
                if not member.isdir() and not is_hidden(member.name):
                    yield from self._member(tar, member)
                self._at = "", None
        except ImageReject as reject:
            damage = reject
        name, sample = self._at
        for key, each in self._samples.items():
            yield from self._faults(printable(key), each, damage)
        if damage is not None and damage.code in (RejectCode.EMPTY, RejectCode.UNSUPPORTED):
            yield self.whole(damage)
        elif damage is not None:
            yield self._fetched(name, damage, sample)

    def whole(self, reject: ImageReject) -> Fetched:
        """Return a reject of the shard itself."""
        self.places.append(Place(self._uri, "", None))
        return Fetched(self._uri, reject)

    def _member(self, tar: TarReader, member: tarfile.TarInfo) -> Iterator[Fetched]:
        name, (key, kind) = printable(member.name), key_and_field(member.name)
        sample = self._samples.setdefault(key, Sample())
        reject = refusal(member)
        if reject is not None:
            sample.is_refused |= is_image(kind)
            yield self._fetched(name, reject)
        elif not is_image(kind):
            self._field(tar, member, sample, printable(kind))
        elif sample.num_images:
            sample.num_images += 1
            reason = f"Sample {printable(key)!r} has {sample.num_images} images or more; the first one is taken."
            yield self._fetched(name, ImageReject("read", RejectCode.DUPLICATE, reason), number=sample.num_images)
        else:
            sample.num_images = 1
            self._at = name, sample
            yield self._fetched(name, tar.read(member, self._max_bytes + 1), sample)

    def _field(self, tar: TarReader, member: tarfile.TarInfo, sample: Sample, kind: str) -> None:
        sample.counts[kind] += 1
        if sample.counts[kind] == 2:
            sample.again[kind] = printable(member.name)
        if sample.counts[kind] > 1 or not self._is_wanted(kind):
            return
        self._at = printable(member.name), None
        value = tar.read(member, member.size) if member.size <= MAX_FIELD_BYTES else None
        sample.values[kind] = value
        self._kept_bytes += len(value or b"")
        if self._kept_bytes > MAX_FIELDS_BYTES:
            raise ConfigError(
                f"Expected less than {MAX_FIELDS_BYTES} bytes of fields beside the images of {self._uri}, got more. "
                "Choose fewer by --columns, or pack smaller shards."
            )

    def _faults(self, key: str, sample: Sample, damage: ImageReject | None) -> Iterator[Fetched]:
        if not sample.num_images and not sample.is_refused and sample.counts:
            kinds = ", ".join(kind or "(no suffix)" for kind in list(sample.counts)[:10])
            cut = " The rest of the shard can't be read." if damage else ""
            reason = (
                f"Expected an image (such as .jpg) in sample {key!r}, got {len(sample.counts)} fields: {kinds}.{cut}"
            )
            yield self._fetched(key, ImageReject("read", RejectCode.MISSING, reason))
        for kind, name in sample.again.items() if sample.num_images else ():
            if sample.counts[kind] > sample.num_images and self._is_wanted(kind):
                reason = f"Sample {key!r} has field {kind!r} {sample.counts[kind]} times; the first one is taken."
                yield self._fetched(name, ImageReject("read", RejectCode.DUPLICATE, reason), number=2)

    def _fetched(self, name: str, data: bytes | ImageReject, sample: Sample | None = None, number: int = 1) -> Fetched:
        """Note an image or a reject, under a URI that is unique in the shard.

        Args:
            name: The member.
            data: Its bytes, or why there are none.
            sample: What belongs to it.
            number: Which of several members of one name it is.
        """
        plain = f"{self._uri}#{name}"
        self._same[plain] += 1  # where to begin: trying all numbers takes long where one name comes ten thousand times
        number = max(number, self._same[plain])
        uri = plain if number == 1 else f"{plain}#{number}"
        while uri in self._uris:
            number += 1
            uri = f"{plain}#{number}"
        self._uris.add(uri)
        self.places.append(Place(uri, name, sample))
        return Fetched(uri, data)
