"""Which columns of a manifest are what: URIs, labels, splits, versions, and those that travel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.refs import extra_name
from pipeline.sources.manifest_files import ManifestFile
from pipeline.sources.paths import PathRule, label_rule, split_rule
from pipeline.sources.rows import plain_type

#: Names of the column of URIs, the likelier ones first.
# fmt: off
URI_COLUMNS = (
    "uri", "url", "path", "file", "filename", "file_name", "filepath", "image", "image_path", "image_url", "key",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class ManifestOptions:
    """Which columns a user asks for; see `pipeline.sources.manifest.ManifestSource`.

    Args:
        uri_column: The column of URIs; None: the first of `URI_COLUMNS` that is there.
        label_from: ``auto``, ``column:NAME``, or a rule for paths.
        split_from: The same, for splits.
        columns: Other columns that travel: ``all``, ``none``, or names with commas between them.

    Raises:
        ConfigError: A rule is none of these.
    """

    uri_column: str | None = None
    label_from: str = "auto"
    split_from: str = "auto"
    columns: str = "all"

    def __post_init__(self) -> None:
        self.label_rule(), self.split_rule()

    def label_rule(self) -> PathRule | None:
        """Return the rule that gives a path's label, None where a column gives it."""
        return _path_rule("--label-from", self.label_from)

    def split_rule(self) -> PathRule | None:
        """Return the rule that gives a path's split, None where a column gives it."""
        return _path_rule("--split-from", self.split_from)


def _path_rule(option: str, text: str) -> PathRule | None:
    kind, _, argument = text.partition(":")
    if text == "auto" or (kind == "column" and argument):
        return None
    if kind not in ("parent", "depth", "regex", "none"):
        expected = "auto, column:NAME, parent, depth:N, regex:PATTERN or none for a manifest"
        raise ConfigError(f"Option {option}: expected {expected}, got {text!r}.")
    return label_rule(text, False) if option == "--label-from" or text == "parent" else split_rule(text)


@dataclass(frozen=True, slots=True)
class ManifestLayout:
    """Which columns are what.

    Args:
        uri: The column of URIs.
        label: The column of labels.
        split: The column of splits.
        version: The column of versions.
        extras: The columns that travel.
        types: Every column that is read, with the type that it is read as.
        names: Of all columns, in their order.
    """

    uri: str
    label: str | None
    split: str | None
    version: str | None
    extras: tuple[str, ...]
    types: pa.Schema
    names: tuple[str, ...]

    @property
    def extra_schema(self) -> pa.Schema:
        """The columns that travel, by their names in the table."""
        return pa.schema([pa.field(extra_name(name), plain_type(self.types.field(name).type)) for name in self.extras])


def layout_of(file: ManifestFile, options: ManifestOptions) -> ManifestLayout:
    """Decide which columns are what.

    Raises:
        ConfigError: The manifest can't be read, or a column isn't there or can't be what it should be.
    """
    types, shown = file.types(), file.shown
    repeated = [name for name, count in Counter(types.names).items() if count > 1]
    if repeated:
        raise ConfigError(f"Manifest {shown} has several columns named {repeated}. Give each its own name.")
    uri = _column("--uri-column", options.uri_column, URI_COLUMNS, types, shown)
    if uri is None:
        raise ConfigError(
            f"Expected a column named {', '.join(URI_COLUMNS[:-1])} or {URI_COLUMNS[-1]} in {shown}; its "
            f"columns are {types.names}. Name the column of URIs by --uri-column. A CSV file begins with a line of "
            "column names."
        )
    label, split = (
        _column(option, text.partition("column:")[2] or None, (name,) if text == "auto" else (), types, shown)
        for option, text, name in (
            ("--label-from", options.label_from, "label"),
            ("--split-from", options.split_from, "split"),
        )
    )
    usual = [name for name in ("version", "etag") if name not in (uri, label, split)]
    version = _column("", None, usual, types, shown)
    roles = dict.fromkeys(name for name in (uri, label, split, version) if name is not None)
    extras = tuple(name for name in _chosen(options.columns, types, shown) if name and name not in roles)
    if len({extra_name(name) for name in extras}) < len(extras):
        names = sorted(name for name in extras if extra_name(name) != name)
        raise ConfigError(
            f"Columns {names} of {shown} would get the names of others in the table. Rename them, or name "
            "the --columns that are wanted."
        )
    fields = [pa.field(name, _role_type(types.field(name), file)) for name in roles]
    read = pa.schema([*fields, *(types.field(name) for name in extras)])
    return ManifestLayout(uri, label, split, version, extras, read, tuple(types.names))


def _column(option: str, asked: str | None, usual: Sequence[str], types: pa.Schema, shown: str) -> str | None:
    """Return the column that was asked for, or else the first with a usual name, in capitals or not."""
    if asked is not None and asked not in types.names:
        raise ConfigError(f"Option {option}: {shown} has no column {asked!r}; its columns are {types.names}.")
    by_lower = {name.lower(): name for name in reversed(types.names)}
    return asked or next((by_lower[name] for name in usual if name in by_lower), None)


def _chosen(columns: str, types: pa.Schema, shown: str) -> list[str]:
    if columns in ("all", "none"):
        return list(types.names) if columns == "all" else []
    chosen = list(dict.fromkeys(name.strip() for name in columns.split(",")))
    unknown = [name for name in chosen if name not in types.names]
    if unknown:
        raise ConfigError(
            f"Option --columns: {shown} has no column {', '.join(map(repr, unknown))}; its columns are "
            f"{types.names}. Expected all, none, or names with commas between them."
        )
    return chosen


def _role_type(field: pa.Field, file: ManifestFile) -> pa.DataType:
    """Return the type that a column of URIs, labels, splits or versions is read as."""
    if file.is_csv or (file.kind == "json" and pa.types.is_timestamp(field.type)):
        return pa.string()  # so that "007" stays so, and a label may look like a date
    try:
        pa.nulls(0, plain_type(field.type)).cast(pa.string())
    except pa.ArrowNotImplementedError:
        raise ConfigError(
            f"Expected text or numbers in column {field.name!r} of {file.shown}, got {field.type}. Name another "
            "column by --uri-column, --label-from or --split-from."
        ) from None
    return field.type
