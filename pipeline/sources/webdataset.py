"""Tar shards as WebDataset lays them out; a unit is one shard, read through from its beginning to its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain, islice

import pyarrow as pa

from pipeline import storage
from pipeline.errors import ConfigError, ImageReject
from pipeline.refs import REF_SCHEMA, SOURCE_NAMES
from pipeline.sources.absence import absent
from pipeline.sources.base import Fetched, Reading
from pipeline.sources.fields import FieldRules, field_type, field_value, json_value
from pipeline.sources.members import is_hidden, is_image, key_and_field, path_parts, refusal
from pipeline.sources.patterns import FilePattern, listed
from pipeline.sources.shard import MAX_FIELD_BYTES, Sample, Shard
from pipeline.sources.tar import TarReader
from pipeline.storage import Store

#: Shards of one table of refs.
REFS_PER_TABLE = 1000
#: How much is looked at to tell which fields there are.
_PEEKED_SHARDS, _PEEKED_SAMPLES, _PEEKED_BYTES = 8, 16, 64 * 2**20

_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_GONE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class WebDatasetSource:
    """Images in tar shards, with the fields that lie beside them: labels, texts, metadata.

    The image and the fields of a sample share a key, the path up to the first dot of the base name, and may come in
    any order. What is there and can't be read, or is there twice, becomes a reject: nothing is lost in silence.

    Args:
        pattern: A tar, plain or compressed with gzip, bzip2 or xz; a folder (every tar below it); or a pattern of tars
            with ``*``, ``**``, ``?``, ``[…]`` or ``{a,b}`` and ``{000..099}``.
        store: What holds them.
        label_from: See `pipeline.sources.fields.FieldRules`, as for the rest.
        split_from: Where splits come from.
        columns: Fields that travel into the table.
    """

    containers = True

    def __init__(
        self,
        pattern: str,
        store: Store | None = None,
        label_from: str = "auto",
        split_from: str = "auto",
        columns: str = "all",
    ) -> None:
        self._store = store or storage.store_for(storage.absolute(pattern))
        self._shards = FilePattern(pattern, self._store, _SUFFIXES, "tars")
        self._rules = FieldRules(label_from, split_from, columns)
        self.skipped: Counter[str] = Counter()

    @property
    def identity(self) -> str:
        """What tells this source from others."""
        return f"webdataset {self._shards.uri}"

    def columns(self) -> pa.Schema:
        """Return the columns of the fields that the first samples have."""
        problems = []
        for info in islice(self._shards.found(Counter()), _PEEKED_SHARDS):
            seen = Peeked(info.uri, self._store, self._rules.needs())
            if seen.has_image:
                if seen.unmet:
                    need, option = next(iter(seen.unmet.items()))
                    raise ConfigError(
                        f"Option {option}: none of the first samples of {info.uri} has {need!r}, only the fields "
                        f"{listed(name or '(no suffix)' for name in seen.fields)}. Name one that is there."
                    )
                return self._rules.schema(seen.fields)
            problems.append(f"{info.uri} {seen.problem}")
        raise ConfigError(
            f"Expected tars with images at {self._shards.uri} (members such as 000.jpg), but {problems[0]}. "
            "Check --source, or pack the shard again."
        )

    def refs(self, unit_size: int) -> Iterator[pa.Table]:  # noqa: ARG002
        """Yield every shard in name order.

        Raises:
            ConfigError: There is none, or one that braces name is not there.
        """
        self.skipped.clear()
        shards = self._shards.found(self.skipped)
        while group := list(islice(shards, REFS_PER_TABLE)):
            nulls = pa.nulls(len(group), pa.string())
            arrays = [pa.array([info.uri for info in group]), pa.array([info.version for info in group])]
            counts = pa.nulls(len(group), pa.int32())
            yield pa.Table.from_arrays([*arrays, counts, nulls, nulls], schema=REF_SCHEMA)

    def read(self, refs: pa.Table, max_bytes: int) -> Reading:
        """Begin to read a shard."""
        (uri,) = refs["uri"].to_pylist()
        return ShardReading(uri, self._store, self._rules, max_bytes)


class ShardReading:
    """A shard while it is read; see `pipeline.sources.base.Reading`.

    Its rejects: what `pipeline.sources.shard.Shard` finds wrong, or that the shard is gone.
    """

    def __init__(self, uri: str, store: Store, rules: FieldRules, max_bytes: int) -> None:
        self._uri, self._store, self._rules, self._max_bytes = uri, store, rules, max_bytes
        self._shard = Shard(uri, max_bytes, rules.is_read)

    def images(self) -> Iterator[Fetched]:
        """Yield every image as it comes."""
        self._shard = shard = Shard(self._uri, self._max_bytes, self._rules.is_read)
        try:
            file = self._store.open(self._uri)
        except Exception as error:
            reject = absent(
                error, self._store, storage.holder(self._uri), "The shard was listed, but is not there any more."
            )
            if reject is None:
                raise
            yield shard.whole(reject)
            return
        with file:
            yield from shard.images(file)

    def rows(self) -> pa.Table:
        """Return what the samples' fields say.

        A value longer than `pipeline.sources.shard.MAX_FIELD_BYTES` is null. So is all but the path's for a reject that
        is no sample's image.
        """
        places, rules = self._shard.places, self._rules
        label, split = rules.label(), rules.split(self._uri)
        nothing = Sample()
        known = [(path_parts(place.name), (place.sample or nothing).values) for place in places]
        arrays = [
            pa.array([place.uri for place in places], pa.string()),
            pa.array([label(parts, values) for parts, values in known], pa.string()),
            pa.array([split(parts, values) for parts, values in known], pa.string()),
        ]
        names = rules.names({name for _, values in known for name in values})
        cells = (
            pa.array([field_value(name, values.get(name)) for _, values in known], field_type(name))
            for name in names.values()
        )
        return pa.Table.from_arrays([*arrays, *cells], names=[*SOURCE_NAMES, *names])


class Peeked:
    """What the first samples of a shard have.

    Args:
        uri: The shard.
        store: What holds it.
        needs: Fields to look for beyond the first samples, as in ``json:a.b``, and options.

    Attributes:
        fields: Fields of samples that have an image.
        unmet: The needs that no sample meets.
        has_image: Whether any sample has an image.
        problem: Why none has.
    """

    def __init__(self, uri: str, store: Store, needs: Mapping[str, str]) -> None:
        self.unmet = dict(needs)
        self.problem = "has none"
        self._images: set[str] = set()
        self._samples: dict[str, set[str]] = {}
        try:
            with store.open(uri) as file:
                self._look(TarReader(file))
        except _GONE:
            self.problem = "is not there any more"
        except ImageReject as reject:
            self.problem = f"can't be read: {reject.message}".rstrip(".")
        self.has_image = bool(self._images)
        self.fields = set(chain.from_iterable(self._samples.get(key, ()) for key in self._images))

    def _look(self, tar: TarReader) -> None:
        for member in tar:
            if tar.position > _PEEKED_BYTES or (len(self._images) > _PEEKED_SAMPLES and not self.unmet):
                return
            if member.isdir() or is_hidden(member.name) or refusal(member):
                continue
            key, field = key_and_field(member.name)
            field = storage.printable(field)
            if is_image(field):
                self._images.add(key)
                continue
            self._samples.setdefault(key, set()).add(field)
            self.unmet.pop(field, None)
            values = [need for need in self.unmet if need.startswith("json:")] if field == "json" else []
            data = tar.read(member, MAX_FIELD_BYTES) if values else None
            for need in values:
                if json_value(data, need.removeprefix("json:")) is not None:
                    del self.unmet[need]
