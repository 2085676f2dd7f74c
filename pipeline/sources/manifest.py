"""A list of images: CSV, TSV, JSON Lines or Parquet with a column of URIs.

Every row becomes a ref. One that can never give an image carries its verdict into the plan, as a version that reads
``reject:<code>:<message>``, and nothing is touched for it when its unit is read.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.digests import DigestMap, digests_of, first_of_each
from pipeline.errors import ConfigError, ImageReject, RejectCode, TransientError
from pipeline.refs import REF_SCHEMA, SOURCE_NAMES, extra_name, extra_schema
from pipeline.sources import web
from pipeline.sources.base import Fetched, Reading
from pipeline.sources.fetch import CONCURRENT_READS, fetch_in_order
from pipeline.sources.folder import REFS_PER_TABLE
from pipeline.sources.paths import PathRule, label_rule, split_name, split_rule
from pipeline.sources.rows import plain_type
from pipeline.storage import OBJECT_STORES, LocalStore, StorageOptions, Store
from pipeline.storage.local import version_of

#: Names of the column of URIs, the likelier ones first.
# fmt: off
URI_COLUMNS = (
    "uri", "url", "path", "file", "filename", "file_name", "filepath", "image", "image_path", "image_url", "key",
)
# fmt: on
#: What a version begins with that is a verdict.
REJECT = "reject:"
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".parq": "parquet",
}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
#: Text that is read at a time. The first such piece of a CSV file also decides on the types of its columns.
_BLOCK_BYTES = 8 * 2**20
#: Local files that are looked up at once, for the sake of network mounts.
_LOOK_UPS = 16
_HTTP = ("http", "https")
# "data:…" holds no address, and "https:/…" is one that was taken for a path. Other names may hold colons.
_NO_PATH = re.compile(r"(?i)(data|blob|file|ftps?|https?|s3[an]?|gcs|gs|az|abfss?):")
# User info, or a query that signs a request, anywhere in a text; what `storage.scrub` would cut out.
_SECRET = r"://[^/\s]*@|://\S*\?\S*(?i:signature|credential|token|sig|sas)[^=&\s]*="  # noqa: S105


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which columns are what, those that are read with their types, and the names of all of them in order."""

    uri: str
    label: str | None
    split: str | None
    version: str | None
    extras: tuple[str, ...]
    types: pa.Schema
    names: tuple[str, ...]

    @property
    def extra_schema(self) -> pa.Schema:
        return pa.schema([pa.field(extra_name(name), plain_type(self.types.field(name).type)) for name in self.extras])


class ManifestSource:
    """Images by a list.

    A column ``version`` or ``etag`` tells one state of an image from another. Without it local files are looked up, and
    the version of anything else is empty, unknown: an object that is replaced goes unnoticed. A row whose image an
    earlier row has named is a reject, as are entries with user info or a query, since neither may be stored; what is
    cut off a rejected row's URI is replaced by ``#row-<number>``.

    What a CSV file leaves empty is null, its first 8 MiB decide on the types of its columns, and a column without a
    name (a pandas index) is left out. URIs in other columns lose user info and signatures too.

    Args:
        uri: The list.
        store: What holds it.
        storage_options: Of the object stores that hold the images.
        uri_column: The column of URIs; None: the first of `URI_COLUMNS` that is there.
        label_from: ``auto`` (a column ``label``), ``column:NAME``, ``none``, or a rule of `pipeline.sources.paths` for
            the path below ``root``, or else below the bucket or ``/``.
        split_from: The same, for splits.
        columns: Other columns that travel: ``all``, ``none``, or names with commas between them.
        root: Where relative entries begin; None: the list's folder.
        allow_http: Whether to read from public web servers.
        concurrent_reads: Files on their way at once.
    """

    containers = False

    def __init__(
        self,
        uri: str,
        store: Store | None = None,
        storage_options: StorageOptions | None = None,
        uri_column: str | None = None,
        label_from: str = "auto",
        split_from: str = "auto",
        columns: str = "all",
        root: str | None = None,
        allow_http: bool = False,
        concurrent_reads: int = CONCURRENT_READS,
    ) -> None:
        self._uri, self._options = storage.absolute(uri), dict(storage_options or {})
        storage.refuse_secrets(self._options)
        self._store = store or storage.store_for(self._uri, self._options)
        self._shown = storage.local_uri(self._uri) if storage.scheme(self._uri) == "file" else self._uri
        self._kind = _SUFFIXES.get(os.path.splitext(self._uri)[1].lower(), "")
        if not self._kind:
            raise ConfigError(f"Expected a manifest named *{', *'.join(_SUFFIXES)}, got {self._shown}. Rename it.")
        if root is not None:
            storage.store_for(storage.absolute(root), self._options, allow_http)  # a scheme that is not allowed fails
        self._root = os.path.dirname(self._uri) if root is None else storage.absolute(root)
        self._uri_column, self._columns, self._allow_http = uri_column, columns, allow_http
        self._label_from, self._split_from, self._concurrent_reads = label_from, split_from, concurrent_reads
        _path_rule("--label-from", label_from), _path_rule("--split-from", split_from)
        self.skipped: Counter[str] = Counter()

    @property
    def identity(self) -> str:
        """What tells this source from others."""
        return f"manifest {self._shown}"

    def columns(self) -> pa.Schema:
        """Return the extra columns. Reads the first piece of a CSV file, and JSON Lines to their end."""
        return self._layout().extra_schema

    def refs(self, unit_size: int) -> Iterator[pa.Table]:  # noqa: ARG002
        """Yield every row, in order."""
        layout, known, number = self._layout(), DigestMap(), 1
        with ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="stat") as pool, self._open(layout.names) as file:
            for batch in _batches(file, self._kind, layout.types):
                for begin in range(0, len(batch), REFS_PER_TABLE):
                    part = batch.slice(begin, REFS_PER_TABLE)
                    yield self._table(part, layout, number, known, pool)
                    number += len(part)

    def read(self, refs: pa.Table, max_bytes: int) -> Reading:
        """Begin to read a unit."""
        stores: dict[str, Store] = {"file": LocalStore(), storage.scheme(self._uri): self._store}
        options = (self._options, self._allow_http, max_bytes, self._concurrent_reads)
        return _ManifestReading(refs, self._root, stores, *options)

    def _layout(self) -> _Layout:
        info = self._store.info(self._uri)
        if info is None or not info.size:
            found = "an empty file" if info else "a folder" if self._store.is_folder(self._uri) else "nothing"
            raise ConfigError(f"Expected a manifest at {self._shown}, found {found} there. Check --source.")
        if storage.scheme(self._root) == "file" and not os.path.isdir(self._root):
            raise ConfigError(f"Expected a folder at {storage.printable(self._root)}, found none. Check --root.")
        with self._open() as file:
            types = _types(file, self._kind)
            counts = Counter(types.names)  # here, since names that are no UTF-8 fail here
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise ConfigError(f"Manifest {self._shown} has several columns named {repeated}. Give each its own name.")
        uri = self._column("--uri-column", self._uri_column, URI_COLUMNS, types)
        if uri is None:
            raise ConfigError(
                f"Expected a column named {', '.join(URI_COLUMNS[:-1])} or {URI_COLUMNS[-1]} in {self._shown}; its "
                f"columns are {types.names}. Name the column of URIs by --uri-column. A CSV file begins with a line of "
                "column names."
            )
        label, split = (
            self._column(option, text.partition("column:")[2] or None, (name,) if text == "auto" else (), types)
            for option, text, name in (
                ("--label-from", self._label_from, "label"),
                ("--split-from", self._split_from, "split"),
            )
        )
        version = self._column(
            "", None, [name for name in ("version", "etag") if name not in (uri, label, split)], types
        )
        roles = dict.fromkeys(name for name in (uri, label, split, version) if name is not None)
        extras = tuple(name for name in self._chosen(types) if name and name not in roles)
        if len({extra_name(name) for name in extras}) < len(extras):
            names = sorted(name for name in extras if extra_name(name) != name)
            raise ConfigError(
                f"Columns {names} of {self._shown} would get the names of others in the table. Rename them, or name "
                "the --columns that are wanted."
            )
        fields = [pa.field(name, self._role_type(types.field(name))) for name in roles]
        read = pa.schema([*fields, *(types.field(name) for name in extras)])
        return _Layout(uri, label, split, version, extras, read, tuple(types.names))

    def _column(self, option: str, asked: str | None, usual: Sequence[str], types: pa.Schema) -> str | None:
        """Return the column that was asked for, or else the first with a usual name, in capitals or not."""
        if asked is not None and asked not in types.names:
            raise ConfigError(f"Option {option}: {self._shown} has no column {asked!r}; its columns are {types.names}.")
        by_lower = {name.lower(): name for name in reversed(types.names)}
        return asked or next((by_lower[name] for name in usual if name in by_lower), None)

    def _chosen(self, types: pa.Schema) -> list[str]:
        if self._columns in ("all", "none"):
            return list(types.names) if self._columns == "all" else []
        chosen = list(dict.fromkeys(name.strip() for name in self._columns.split(",")))
        unknown = [name for name in chosen if name not in types.names]
        if unknown:
            raise ConfigError(
                f"Option --columns: {self._shown} has no column {', '.join(map(repr, unknown))}; its columns are "
                f"{types.names}. Expected all, none, or names with commas between them."
            )
        return chosen

    def _role_type(self, field: pa.Field) -> pa.DataType:
        """Return the type that a column of URIs, labels, splits or versions is read as."""
        if self._kind in _DELIMITERS or (self._kind == "json" and pa.types.is_timestamp(field.type)):
            return pa.string()  # so that "007" stays so, and a label may look like a date
        try:
            pa.nulls(0, plain_type(field.type)).cast(pa.string())
        except pa.ArrowNotImplementedError:
            raise ConfigError(
                f"Expected text or numbers in column {field.name!r} of {self._shown}, got {field.type}. Name another "
                "column by --uri-column, --label-from or --split-from."
            ) from None
        return field.type

    @contextmanager
    def _open(self, names: Sequence[str] = ()) -> Iterator[IO[bytes]]:
        """Open the manifest; what is found to be wrong with it while it is open becomes a `ConfigError`."""
        try:
            with self._store.open(self._uri) as file:
                yield file
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
            text, advice = storage.scrub(str(error)).rstrip("."), "Correct it, and run again."
            if isinstance(error, UnicodeDecodeError) or "UTF8" in text:
                text, advice = f"expected UTF-8, got other bytes ({text})", "Convert it to UTF-8."
            elif re.search("onversion error|changed from|incompatible types", text):
                if names:
                    text = re.sub(r"CSV column #(\d+)", lambda match: f"column {names[int(match[1])]!r}", text)
                if self._kind in _DELIMITERS:
                    text += f" (the first {_BLOCK_BYTES >> 20} MiB decide on the types)"
                advice = "Convert the column to one type, leave it out by --columns, or write the manifest as Parquet."
            raise ConfigError(f"Manifest {self._shown} can't be read: {text}. {advice}") from None

    def _table(
        self, part: pa.RecordBatch, layout: _Layout, first: int, known: DigestMap, pool: ThreadPoolExecutor
    ) -> pa.Table:
        """Return the refs of some rows.

        Args:
            part: The rows.
            layout: Which columns are what.
            first: The number of the first of them, counted from 1.
            known: The URIs before them. 24 bytes each: a set of digests would take more than 100, of strings 200.
            pool: Looks up local files.
        """
        places = _Places(self._root, self._shown, self._allow_http)
        entries = _texts(part, layout.uri)
        located = [places.locate(entry, number) for number, entry in enumerate(entries, first)]
        uris, versions = [uri for uri, _ in located], [verdict for _, verdict in located]
        labels, splits = (
            _shown_texts(part, column)
            if rule is None
            else [
                None if verdict else storage.printable(rule(places.parts(uri)) or "") or None
                for uri, verdict in located
            ]
            for rule, column in (
                (_path_rule("--label-from", self._label_from), layout.label),
                (_path_rule("--split-from", self._split_from), layout.split),
            )
        )
        _mark_repeated(uris, versions, first, known)
        for i, own in enumerate(_shown_texts(part, layout.version)):
            if own and not versions[i]:
                versions[i] = f"version {own}" if own.startswith(REJECT) else own
        _look_up(uris, versions, pool)
        text = [pa.array(values, pa.string()) for values in (uris, versions, labels, map(split_name, splits))]
        extras = [self._extra(part.column(name)) for name in layout.extras]
        ones = pa.repeat(pa.scalar(1, pa.int32()), len(uris))
        schema = pa.schema([*REF_SCHEMA, *layout.extra_schema])
        return pa.Table.from_arrays([*text[:2], ones, *text[2:], *extras], schema=schema)

    def _extra(self, values: pa.Array) -> pa.Array:
        values = _plain(values)
        if self._kind in _DELIMITERS and pa.types.is_string(values.type):
            # Not if_else, which in pyarrow 17 damages a slice of strings.
            values = pc.replace_with_mask(values, pc.equal(values, ""), pa.scalar(None, pa.string()))
        return _without_secrets(values)


def _path_rule(option: str, text: str) -> PathRule | None:
    """Return the rule for paths that an option names, None where it names a column.

    Raises:
        ConfigError: It names neither.
    """
    kind, _, argument = text.partition(":")
    if text == "auto" or (kind == "column" and argument):
        return None
    if kind not in ("parent", "depth", "regex", "none"):
        expected = "auto, column:NAME, parent, depth:N, regex:PATTERN or none for a manifest"
        raise ConfigError(f"Option {option}: expected {expected}, got {text!r}.")
    return label_rule(text, False) if option == "--label-from" or text == "parent" else split_rule(text)


# --- From an entry to a URI, or to a verdict ---


def _verdict(code: RejectCode, message: str) -> str:
    return f"{REJECT}{code.value}:{message}"


class _Places:
    """Where entries lead.

    Args:
        root: Where relative ones begin.
        manifest: How the manifest's own URI is shown.
        allow_http: Whether they may lead to web servers.
    """

    def __init__(self, root: str, manifest: str, allow_http: bool) -> None:
        self._root, self._manifest, self._allow_http = root, manifest, allow_http
        self._is_local = storage.scheme(root) == "file"

    def parts(self, uri: str) -> list[str]:
        """Return the components of a URI's path, from the root if it lies below it."""
        path = storage.absolute(uri)
        below = storage.join(self._root, "")
        if path.startswith(below):
            path = path[len(below) :]
        elif "://" in path:
            path = path.partition("://")[2].partition("/")[2]
        return path.strip("/").split("/")

    def locate(self, entry: str | None, number: int) -> tuple[str, str]:
        """Return an entry's URI, without what must not be stored, and a verdict or an empty string."""
        row = f"#row-{number}"
        if entry is None or not entry.strip():
            return self._manifest + row, _verdict(RejectCode.MISSING, "The row names no image.")
        if "\0" in entry:
            return self._manifest + row, _verdict(RejectCode.MISSING, "No name can hold a NUL character.")
        if ":" not in entry:
            return self._from_path(entry, row)
        if "://" not in entry:
            match = _NO_PATH.match(entry)
            if not match:
                return self._from_path(entry, row)
            expected = "Expected a path or scheme://…; if this is a file's name, put './' before it."
            return f"{match[1].lower()}:…{row}", _verdict(RejectCode.REFUSED, expected)
        entry = entry.strip()
        if storage.scheme(entry) != "file":
            return self._from_uri(entry, row)
        if entry.lower().startswith("file://"):
            path = entry[len("file://") :].removeprefix("localhost")
            if not path.startswith("/") or "%00" in path:
                return f"file:…{row}", _verdict(RejectCode.REFUSED, "Expected file:/// and a path on this machine.")
            return storage.local_uri(storage.local_path(f"file://{path}")), ""
        shown = storage.scrub(entry)  # a URI that something stands before
        return self._from_path(entry, row) if shown == entry else (shown + row, _secret())

    def _from_path(self, path: str, row: str) -> tuple[str, str]:
        if path.startswith("~/"):
            return storage.local_uri(path), ""
        if self._is_local or path.startswith("/"):
            return storage.local_uri(os.path.join(self._root, path)), ""
        uri = storage.join(self._root, path)
        if not {".", ".."}.isdisjoint(path.split("/")):
            kind, _, place = uri.partition("://")
            bucket, *rest = posixpath.normpath(place).split("/")
            if bucket != place.partition("/")[0]:
                return uri, _verdict(RejectCode.UNSAFE, "The relative entry leads out of the bucket.")
            uri = f"{kind}://{'/'.join((bucket, *rest))}"
        return self._from_uri(uri, row)

    def _from_uri(self, uri: str, row: str) -> tuple[str, str]:
        kind, rest = storage.scheme(uri), uri.partition("://")[2]
        if (kind not in OBJECT_STORES or "@" in rest or "?" in rest) and storage.has_secret(uri):
            return storage.redact(uri) + row, _secret()
        if kind in _HTTP:
            refused = "Web addresses are read with --allow-http only."
            return f"{kind}://{rest}", "" if self._allow_http else _verdict(RejectCode.REFUSED, refused)
        if kind not in OBJECT_STORES:
            return uri, _verdict(RejectCode.REFUSED, f"Expected a path, s3://, gs:// or az://, got {kind}://.")
        bucket, _, key = rest.rstrip("/").partition("/")
        has_name = bucket and key and len(key) <= 1024  # the limit of all three stores
        wrong = (
            ""
            if has_name
            else _verdict(RejectCode.MISSING, f"Expected {kind}://bucket/key, the key of at most 1024 bytes.")
        )
        return f"{kind}://{rest.rstrip('/')}", wrong


def _secret() -> str:
    return _verdict(
        RejectCode.REFUSED,
        "User info, signatures and queries of web addresses may be secrets, so they are neither stored nor used. Put "
        "credentials into the environment, and name the object itself.",
    )


def _mark_repeated(uris: list[str], versions: list[str], first: int, known: DigestMap) -> None:
    """Turn rows whose URI an earlier row has into rejects with a URI of their own; add the others to the known ones."""
    digests = digests_of(pa.array(uris, pa.string()))
    new = first_of_each(digests)
    new = new[known.find(digests[new]) < 0]
    known.add(digests[new], new + first)
    for i in sorted(set(range(len(uris))) - set(new.tolist())):
        row = known.find(digests[i : i + 1])[0]
        versions[i] = _verdict(RejectCode.DUPLICATE, f"Row {row} of the manifest names the same image.")
        uris[i] += f"#row-{first + i}"


def _look_up(uris: Sequence[str], versions: list[str], pool: ThreadPoolExecutor) -> None:
    """Fill in the versions of local files that have none yet."""
    unknown = [i for i, uri in enumerate(uris) if not versions[i] and storage.scheme(uri) == "file"]
    slices = [unknown[k::_LOOK_UPS] for k in range(_LOOK_UPS)]
    for places, found in zip(slices, pool.map(lambda places: [_version(uris[i]) for i in places], slices), strict=True):
        for i, version in zip(places, found, strict=True):
            versions[i] = version


def _version(uri: str) -> str:
    """Return a local file's version, or a verdict where there is something else, whose reading might never end."""
    try:
        status = os.stat(storage.local_path(uri))
    except PermissionError:
        return ""  # reading it will tell
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return _verdict(RejectCode.MISSING, "No file can have so long a name.")
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return "missing"
        raise
    if not stat.S_ISREG(status.st_mode):
        return _verdict(RejectCode.MISSING, "It is a folder or a device, not a file.")
    return version_of(status)


# --- The files ---


def _types(file: IO[bytes], kind: str) -> pa.Schema:
    """Return a manifest's columns and their types."""
    if kind == "parquet":
        return pq.ParquetFile(file, pre_buffer=False).schema_arrow
    if kind == "json":
        types = pa.schema([])
        for block in _json_blocks(file):  # all of them, since any object may have keys that no other has
            types = pa.unify_schemas([types, _json(block).schema], promote_options="permissive")
        return types
    with _csv(file, kind) as reader:
        types = reader.schema
    if any(pa.types.is_binary(field.type) for field in types):
        raise pa.ArrowInvalid("invalid UTF8 data")
    # A column that is empty so far will hold text, if anything.
    return pa.schema([field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in types])


def _batches(file: IO[bytes], kind: str, types: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a manifest with the columns that ``types`` names, as these types."""
    if kind == "parquet":
        parquet = pq.ParquetFile(file, pre_buffer=False)  # which would fetch the columns of all row groups ahead
        for batch in parquet.iter_batches(REFS_PER_TABLE, columns=types.names):
            batch.validate(full=True)  # the reader itself takes any bytes for UTF-8
            yield batch
    elif kind == "json":
        for block in _json_blocks(file):
            yield from _json(block, types).to_batches()
    else:
        with _csv(file, kind, types) as reader:
            yield from reader


def _csv(file: IO[bytes], kind: str, types: pa.Schema | None = None) -> pa.csv.CSVStreamingReader:
    chosen = {} if types is None else {"include_columns": types.names, "column_types": types}
    return pa.csv.open_csv(
        file,
        pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),  # with threads, errors tell no row
        pa.csv.ParseOptions(
            delimiter=_DELIMITERS[kind],
            newlines_in_values=True,
            invalid_row_handler=lambda row: "error" if row.text.strip() else "skip",  # blank, but not empty
        ),
        pa.csv.ConvertOptions(**chosen),
    )


def _json_blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield whole lines. pyarrow's own streaming reader would let the first block decide on columns and types."""
    while block := file.read(_BLOCK_BYTES):
        block += file.readline()
        block.decode()  # pyarrow takes any bytes for UTF-8
        if block.strip():
            yield block


def _json(block: bytes, types: pa.Schema | None = None) -> pa.Table:
    known = {} if types is None else {"explicit_schema": types, "unexpected_field_behavior": "ignore"}
    size = pa.json.ReadOptions(block_size=len(block) + 1)  # else no line may be longer than 1 MiB
    return pa.json.read_json(pa.BufferReader(block), size, pa.json.ParseOptions(**known))


# --- Values ---


def _plain(values: pa.Array) -> pa.Array:
    kind = plain_type(values.type)
    return values if kind == values.type else values.cast(kind)


def _texts(part: pa.RecordBatch, column: str | None) -> list[str | None]:
    """Return a column as text, with None for empty text and where there is no such column."""
    if column is None:
        return [None] * len(part)
    return [text or None for text in _plain(part.column(column)).cast(pa.string()).to_pylist()]


def _shown_texts(part: pa.RecordBatch, column: str | None) -> list[str | None]:
    values: list[str | None] = _without_secrets(pa.array(_texts(part, column), pa.string())).to_pylist()
    return values


def _without_secrets(values: pa.Array) -> pa.Array:
    """Redact URIs in text, at any depth, where one has user info or a signature."""
    if not any(pc.any(pc.match_substring_regex(texts, _SECRET)).as_py() for texts in _all_texts(values)):
        return values
    return pa.array([_scrubbed(value) for value in values.to_pylist()], values.type)


def _all_texts(values: pa.Array) -> Iterator[pa.Array]:
    kind = values.type
    if pa.types.is_nested(kind):
        is_map, is_struct = pa.types.is_map(kind), pa.types.is_struct(kind)
        for child in (values.keys, values.items) if is_map else values.flatten() if is_struct else (values.flatten(),):
            yield from _all_texts(child)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        yield values.cast(pa.large_string())


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return storage.scrub(value) if re.search(_SECRET, value) else value
    if isinstance(value, dict):
        return {name: _scrubbed(item) for name, item in value.items()}
    return type(value)(map(_scrubbed, value)) if isinstance(value, list | tuple) else value


# --- Reading ---


class _ManifestReading:
    """A unit of single files from anywhere, several of them on their way at once."""

    def __init__(
        self,
        refs: pa.Table,
        root: str,
        stores: dict[str, Store],
        options: StorageOptions,
        allow_http: bool,
        max_bytes: int,
        concurrent_reads: int,
    ) -> None:
        self._refs, self._root, self._stores = refs, root, dict(stores)
        self._allow_http, self._max_bytes, self._concurrent_reads = allow_http, max_bytes, concurrent_reads
        versions = zip(refs["uri"].to_pylist(), refs["version"].to_pylist(), strict=True)
        self._verdicts = {uri: version for uri, version in versions if version.startswith(REJECT)}
        for kind in {storage.scheme(uri) for uri in refs["uri"].to_pylist() if uri not in self._verdicts}:
            if kind not in _HTTP:
                self._stores.setdefault(kind, storage.store_for(f"{kind}://", options))
        self._buckets: set[str] = set()
        self._lock = threading.Lock()

    def images(self) -> Iterator[Fetched]:
        """Yield every image."""
        yield from fetch_in_order(self._refs["uri"].to_pylist(), self._fetch, self._concurrent_reads)

    def rows(self) -> pa.Table:
        """Return what the manifest says of them."""
        return self._refs.select([*SOURCE_NAMES, *extra_schema(self._refs.schema).names])

    def _fetch(self, uri: str) -> Fetched:
        try:
            return Fetched(uri, self._data(uri))
        except ImageReject as reject:
            return Fetched(uri, reject)

    def _data(self, uri: str) -> bytes:
        if uri in self._verdicts:
            _, code, message = self._verdicts[uri].split(":", 2)
            raise ImageReject("read", RejectCode(code), message)
        kind = storage.scheme(uri)
        if kind in _HTTP:
            if not self._allow_http:  # the plan may be of a run that did
                raise ImageReject("read", RejectCode.REFUSED, "Web addresses are read with --allow-http only.")
            return web.fetch(uri, self._max_bytes)
        try:
            data = self._stores[kind].read_bytes(uri, self._max_bytes)
        except FileNotFoundError:
            self._require_place(kind, uri)
            raise ImageReject("read", RejectCode.MISSING, "There is no such file.") from None
        if kind != "file":
            self._buckets.add(_bucket(uri))
        return data

    def _require_place(self, kind: str, uri: str) -> None:
        """Tell a missing image from a lost mount or bucket.

        Raises:
            TransientError: The place is gone.
        """
        if kind == "file":
            if storage.scheme(self._root) == "file" and not os.path.isdir(self._root):
                raise TransientError(f"The folder {storage.printable(self._root)} is gone. Mount it, and run again.")
            return
        store, bucket = self._stores[kind], _bucket(uri)
        with self._lock:  # one look for all that wait here, since it may list the whole bucket
            if bucket in self._buckets:
                return
            try:
                is_there = store.is_folder(bucket)
            except PermissionError:
                is_there = True  # it can't be listed, but it has just answered that there is no such object
            if not is_there:
                raise TransientError(f"The bucket {bucket} is gone. Correct the manifest, or bring it back; run again.")
            self._buckets.add(bucket)


def _bucket(uri: str) -> str:
    return "/".join(uri.split("/", 3)[:3])
