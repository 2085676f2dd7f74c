"""Tar shards as WebDataset lays them out; a unit is one shard, read through from its beginning to its end."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import pyarrow as pa
from braceexpand import braceexpand

from pipeline import storage
from pipeline.errors import ConfigError, ImageReject, RejectCode, TransientError
from pipeline.refs import REF_SCHEMA, SOURCE_NAMES, SPLITS, extra_name
from pipeline.sources.base import Fetched, Reading
from pipeline.sources.paths import label_rule, split_name, split_rule
from pipeline.sources.tar import (
    MAX_FIELD_BYTES,
    Sample,
    Shard,
    TarReader,
    is_hidden,
    is_image,
    key_and_field,
    path_parts,
    refusal,
)
from pipeline.storage import FileInfo, Store

#: Shards of one table of refs, and shards that are looked up at once.
REFS_PER_TABLE, CONCURRENT_LOOKUPS = 1000, 16
#: How much is looked at to tell which fields there are.
_PEEKED_SHARDS, _PEEKED_SAMPLES, _PEEKED_BYTES = 8, 16, 64 * 2**20

_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_SPLIT = re.compile(rf"({'|'.join(sorted(SPLITS, key=len, reverse=True))})(?![a-z])")
_TEXT_FIELDS = frozenset(("txt", "text", "caption", "json", "cls", "csv", "tsv", "xml", "html", "url", "md"))
_GONE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)

#: Label or split of an image by the parts of its member's name, and the fields of its sample.
_Rule = Callable[[Sequence[str], Mapping[str, "bytes | None"]], "str | None"]


class WebDatasetSource:
    """Images in tar shards, with the fields that lie beside them: labels, texts, metadata.

    The image and the fields of a sample share a key, the path up to the first dot of the base name, and may come in
    any order. What is there and can't be read, or is there twice, becomes a reject: nothing is lost in silence.

    Args:
        pattern: A tar, plain or compressed with gzip, bzip2 or xz; a folder (every tar below it); or a pattern of tars
            with ``*``, ``**``, ``?``, ``[…]`` or ``{a,b}`` and ``{000..099}``.
        store: What holds them.
        label_from: See `FieldRules`, as for the rest.
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
        self._pattern = storage.absolute(pattern)
        self._store = store or storage.store_for(self._pattern)
        self._rules = FieldRules(label_from, split_from, columns)
        self.skipped: Counter[str] = Counter()
        self._places()  # a wrong pattern must fail here

    @property
    def identity(self) -> str:
        """What tells this source from others."""
        return f"webdataset {_uri(self._pattern)}"

    def columns(self) -> pa.Schema:
        """Return the columns of the fields that the first samples have."""
        problems = []
        for info in islice(self._shards(_PEEKED_SHARDS), _PEEKED_SHARDS):
            seen = Peeked(info.uri, self._store, self._rules.needs())
            if seen.has_image:
                if seen.unmet:
                    need, option = next(iter(seen.unmet.items()))
                    raise ConfigError(
                        f"Option {option}: none of the first samples of {info.uri} has {need!r}, only the fields "
                        f"{_listed(seen.fields)}. Name one that is there."
                    )
                return self._rules.schema(seen.fields)
            problems.append(f"{info.uri} {seen.problem}")
        raise ConfigError(
            f"Expected tars with images at {_uri(self._pattern)} (members such as 000.jpg), "
            + (f"but {problems[0]}. Check --source, or pack the shard again." if problems else "found no tar there.")
        )

    def refs(self, unit_size: int) -> Iterator[pa.Table]:  # noqa: ARG002
        """Yield every shard in name order.

        Raises:
            ConfigError: One that braces name is not there.
        """
        shards = self._shards()
        while group := list(islice(shards, REFS_PER_TABLE)):
            nulls = pa.nulls(len(group), pa.string())
            arrays = [pa.array([info.uri for info in group]), pa.array([info.version for info in group])]
            counts = pa.nulls(len(group), pa.int32())
            yield pa.Table.from_arrays([*arrays, counts, nulls, nulls], schema=REF_SCHEMA)

    def read(self, refs: pa.Table, max_bytes: int) -> Reading:
        """Begin to read a shard."""
        (uri,) = refs["uri"].to_pylist()
        return ShardReading(uri, self._store, self._rules, max_bytes)

    def _places(self) -> list[str]:
        try:
            return sorted(set(braceexpand(self._pattern))) if "{" in self._pattern else [self._pattern]
        except ValueError as error:
            raise ConfigError(f"Expected braces as in shard-{{000..099}}.tar, got {self._pattern}: {error}") from None

    def _shards(self, most_places: int | None = None) -> Iterator[FileInfo]:
        places = self._places()[:most_places]
        with ThreadPoolExecutor(min(CONCURRENT_LOOKUPS, len(places)), thread_name_prefix="look-up") as pool:
            found = list(pool.map(self._find, places))
        missing = [place for place, infos in zip(places, found, strict=True) if infos is None]
        if missing and most_places is not None:
            yield from self._shards()  # tells of all that are missing
            return
        if missing and len(places) > 1:
            raise ConfigError(
                f"Expected {len(places)} shards by {_uri(self._pattern)}, but {len(missing)} of them are not there: "
                f"{_listed(missing)}. Correct the range, or bring them there."
            )
        self.skipped.clear()
        seen: set[str] = set()
        for place, infos in zip(places, found, strict=True):
            for info in infos or ():
                if info.uri != _uri(place) and not info.uri.lower().endswith(_SUFFIXES):
                    self.skipped["no tar by its name"] += 1
                elif info.uri not in seen:
                    seen.add(info.uri)
                    yield info

    def _find(self, place: str) -> Iterable[FileInfo] | None:
        """Return the files that one place stands for, None where there is nothing; a folder is not yet listed."""
        if info := self._store.info(_uri(place)):
            return [info]
        if any(mark in place for mark in "*?["):
            return self._store.glob(place) or None
        return self._store.list_files(place) if self._store.is_folder(place) else None


class ShardReading:
    """A shard while it is read; see `pipeline.sources.base.Reading`.

    Its rejects: what `pipeline.sources.tar.Shard` finds wrong, or that the shard is gone.
    """

    def __init__(self, uri: str, store: Store, rules: FieldRules, max_bytes: int) -> None:
        self._uri, self._store, self._rules, self._max_bytes = uri, store, rules, max_bytes
        self._shard = Shard(uri, max_bytes, rules.is_read)

    def images(self) -> Iterator[Fetched]:
        """Yield every image as it comes."""
        self._shard = shard = Shard(self._uri, self._max_bytes, self._rules.is_read)
        try:
            file = self._store.open(self._uri)
        except _GONE:
            self._check_mount()
            reason = "The shard was listed, but is not there any more."
            yield shard.whole(ImageReject("read", RejectCode.MISSING, reason))
            return
        with file:
            yield from shard.images(file)

    def rows(self) -> pa.Table:
        """Return what the samples' fields say.

        A value longer than `pipeline.sources.tar.MAX_FIELD_BYTES` is null. So is all but the path's for a reject that
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
            pa.array([_cell(name, values.get(name)) for _, values in known], _kind(name)) for name in names.values()
        )
        return pa.Table.from_arrays([*arrays, *cells], names=[*SOURCE_NAMES, *names])

    def _check_mount(self) -> None:
        """Refuse to take a lost mount for missing shards."""
        folder = self._uri.rpartition("/")[0]
        if storage.scheme(self._uri) == "file" and not self._store.is_folder(folder or "/"):
            raise TransientError(f"The folder {folder} of a shard is gone. Mount it, and run again.")


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
                if _json_value(data, need.removeprefix("json:")) is not None:
                    del self.unmet[need]


@dataclass(frozen=True, slots=True)
class FieldRules:
    """What becomes of the fields that lie beside an image.

    Args:
        label_from: ``auto`` (field ``cls``, where there is one), ``cls``, ``txt``, ``json:FIELD`` (``json:a.b`` for a
            value within an object), or a rule for the member's path: see `pipeline.sources.paths.label_rule`.
        split_from: ``auto`` (the shard's name begins with a split's, as in ``train-000.tar``, or its folder is named
            so), ``json:FIELD``, or a rule for the member's path: see `pipeline.sources.paths.split_rule`.
        columns: Fields that travel into the table: ``all`` but the one that is the label, ``none``, or names with
            commas between them.

    Raises:
        ConfigError: One is none of these.
    """

    label_from: str
    split_from: str
    columns: str

    def __post_init__(self) -> None:
        for option, rule, kinds in (
            ("--label-from", self.label_from, ("auto", "cls", "txt", "json", "parent", "depth", "regex", "none")),
            ("--split-from", self.split_from, ("auto", "json", "depth", "regex", "none")),
        ):
            kind, colon, argument = rule.partition(":")
            if kind not in kinds or (kind in ("auto", "cls", "txt") and colon) or (kind == "json" and not argument):
                known = {"json": "json:FIELD", "depth": "depth:N", "regex": "regex:PATTERN"}
                expected = ", ".join(known.get(each, each) for each in kinds[:-1])
                raise ConfigError(f"Option {option}: expected {expected} or none for this format, got {rule!r}.")
        self.label(), self.split("")

    def needs(self) -> dict[str, str]:
        """Return the fields that must be there, and the options that name them."""
        named = dict.fromkeys(self._named(), "--columns")
        if self.split_from.startswith("json:"):
            named[self.split_from] = "--split-from"
        if self.label_from in ("cls", "txt") or self.label_from.startswith("json:"):
            named[self.label_from] = "--label-from"
        return named

    def is_read(self, field: str) -> bool:
        """Return whether a field's value is needed."""
        by_json = any(rule.startswith("json:") for rule in (self.label_from, self.split_from))
        return self._travels(field) or field == self._label_field() or (by_json and field == "json")

    def schema(self, fields: Iterable[str]) -> pa.Schema:
        """Return the columns of those among some fields that travel."""
        return pa.schema([pa.field(name, _kind(each)) for name, each in self.names(fields).items()])

    def names(self, fields: Iterable[str]) -> dict[str, str]:
        """Return those among some fields that travel, by their names in the table."""
        names: dict[str, str] = {}
        for each in sorted(filter(self._travels, fields)):
            other = names.setdefault(extra_name(each), each)
            if other != each:
                raise ConfigError(
                    f"Fields {other!r} and {each!r} would share the column {extra_name(each)!r}. Choose by --columns."
                )
        return names

    def label(self) -> _Rule:
        """Return the rule for labels."""
        field = self._label_field()
        if field is not None:
            return lambda _, fields: _text(fields.get(field))
        if self.label_from.startswith("json:"):
            return self._by_json(self.label_from)
        by_path = label_rule(self.label_from, self.split_from == "auto")
        return lambda parts, _: (by_path(parts) or None) if parts else None

    def split(self, uri: str) -> _Rule:
        """Return the rule for the splits of a shard's images."""
        if self.split_from == "auto":
            folder, _, name = uri.lower().rpartition("/")
            match = _SPLIT.match(name) or _SPLIT.fullmatch(folder.rpartition("/")[2])
            by_name = SPLITS[match.group(1)] if match else None
            return lambda *_: by_name
        if self.split_from.startswith("json:"):
            by_json = self._by_json(self.split_from)
            return lambda parts, fields: split_name(by_json(parts, fields))
        by_path = split_rule(self.split_from)
        return lambda parts, _: by_path(parts) if parts else None

    @staticmethod
    def _by_json(rule: str) -> _Rule:
        path = rule.removeprefix("json:")
        return lambda _, fields: _json_value(fields.get("json"), path)

    def _named(self) -> list[str]:
        names = () if self.columns in ("all", "none") else self.columns.split(",")
        return [name.strip().lower() for name in names if name.strip()]

    def _label_field(self) -> str | None:
        return {"auto": "cls", "cls": "cls", "txt": "txt"}.get(self.label_from)

    def _travels(self, field: str) -> bool:
        if self.columns == "all":
            return field not in ("", self._label_field())
        return field in self._named()


def _kind(field: str) -> pa.DataType:
    """Return the type of a field's column, which depends on its name alone, so that all shards agree."""
    last = field.rpartition(".")[2]
    return pa.string() if last in _TEXT_FIELDS or re.fullmatch("__.*__", last) else pa.binary()


def _cell(field: str, data: bytes | None) -> str | bytes | None:
    """Return a field's value as its column has it; None for JSON that is none."""
    if data is None or _kind(field) == pa.binary():
        return data
    if field.rpartition(".")[2] == "json" and _parsed(data) is None:
        return None
    return data.decode("utf-8", "replace")


def _text(data: bytes | None) -> str | None:
    """Return a label as text; None where it is empty or no UTF-8."""
    try:
        return None if data is None else data.decode("utf-8-sig").strip() or None
    except UnicodeDecodeError:
        return None


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _json_value(data: bytes | None, path: str) -> str | None:
    """Return a value within JSON as text; None where there is none."""
    value = None if data is None else _parsed(data)
    for name in [path] if isinstance(value, dict) and path in value else path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair, Arrow can't


def _uri(place: str) -> str:
    return storage.local_uri(place) if storage.scheme(place) == "file" else place


def _listed(names: Iterable[str]) -> str:
    names = sorted(set(names))
    return ", ".join(name or "(no suffix)" for name in names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
