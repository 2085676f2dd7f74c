"""Tables that hold image bytes in a column: which columns are images, labels and splits, and which travel."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.refs import extra_name

#: The extra column for the ``path`` that a Hugging Face image has beside its bytes.
PATH_COLUMN = "image_path"


@dataclass(frozen=True, slots=True)
class RowOptions:
    """Which columns a user asks for.

    Args:
        image_column: The column of images; None: the only one that can be.
        label_from: ``auto`` (a column ``label``, if there is one), ``column:NAME`` or ``none``.
        split_from: ``auto`` (a column ``split``, if there is one), ``column:NAME`` or ``none``.
        columns: Other columns that travel into the table: ``all``, ``none`` or names with commas between them.

    Raises:
        ConfigError: A rule is none of these.
    """

    image_column: str | None = None
    label_from: str = "auto"
    split_from: str = "auto"
    columns: str = "all"

    def __post_init__(self) -> None:
        for option, rule in (("--label-from", self.label_from), ("--split-from", self.split_from)):
            if rule not in ("auto", "none") and not (rule.startswith("column:") and rule != "column:"):
                raise ConfigError(f"Option {option}: expected auto, column:NAME or none for this format, got {rule!r}.")


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Which columns are what, in every part of a source.

    Args:
        image: The column of images.
        label: The column of labels.
        split: The column of splits.
        extras: The columns that travel, each with its name in the table.
        types: Every column that is read, with its plain type.
        with_names: Those of them whose integers stand for class names.
        path: Whether `PATH_COLUMN` travels.
        where: The part of the source that this was decided on.
    """

    image: str
    label: str | None
    split: str | None
    extras: tuple[tuple[str, str], ...]
    types: pa.Schema
    with_names: tuple[str, ...]
    path: bool
    where: str

    @property
    def schema(self) -> pa.Schema:
        """The extra columns, by their names in the table."""
        fields = [pa.field(name, self.types.field(column).type) for column, name in self.extras]
        return pa.schema([*fields, pa.field(PATH_COLUMN, pa.string())] if self.path else fields)

    def check(self, schema: pa.Schema, where: str) -> None:
        """Refuse a part of the source whose columns are not those that were decided on.

        A column without any value, which has the null type, fits every type.

        Raises:
            ConfigError: A column is missing, or of another type.
        """
        for column, kind in zip(self.types.names, self.types.types, strict=True):
            named = " with class names"
            expected = f"{kind}{named if column in self.with_names else ''}"
            if schema.get_field_index(column) < 0:
                raise ConfigError(
                    f"Column {column!r} is {expected} in {self.where}, but {where} has no such column, only "
                    f"{_listed(schema)}. Leave the file out, or give the names that all files have as --columns."
                )
            got = plain_type(schema.field(column).type)
            found = f"{got}{named if column in (self.label, self.split) and class_names(schema, column) else ''}"
            if found != expected and (column == self.image or not pa.types.is_null(got)):
                raise ConfigError(
                    f"Column {column!r} is {expected} in {self.where}, but {found} in {where}. One table has one type "
                    "for a column: convert it, leave the file out, or name other --columns."
                )


def layout_of(schema: pa.Schema, options: RowOptions, where: str) -> RowLayout:
    """Decide which columns are what.

    Args:
        schema: All columns of one part of the source.
        options: What is asked for.
        where: The part's name, for errors.

    Raises:
        ConfigError: A column isn't there or can't be what it should be, or several could be the images.
    """
    image = _image_column(schema, options.image_column, where)
    label = _name_column("--label-from", options.label_from, "label", schema, where)
    split = _name_column("--split-from", options.split_from, "split", schema, where)
    if options.columns == "all":
        wanted = [name for name in schema.names if name not in (image, label, split)]
    else:
        wanted = [] if options.columns == "none" else [name.strip() for name in options.columns.split(",")]
        unknown = [name for name in wanted if name not in schema.names or name == image]
        if unknown:
            raise ConfigError(
                f"Option --columns: expected all, none or names of columns other than the images', got {unknown}; "
                f"{where} has {_listed(schema)}."
            )
    names = [extra_name(name) for name in wanted]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"Columns of {where} would share the names {twice} in the table. Choose some by --columns.")
    image_type = plain_type(schema.field(image).type)
    path = options.columns == "all" and PATH_COLUMN not in names and "path" in fields_of(image_type)
    read = dict.fromkeys(name for name in (image, label, split, *wanted) if name is not None)
    types = pa.schema([pa.field(name, plain_type(schema.field(name).type)) for name in read])
    with_names = tuple(name for name in (label, split) if name is not None and class_names(schema, name))
    return RowLayout(image, label, split, tuple(zip(wanted, names, strict=True)), types, with_names, path, where)


def _image_column(schema: pa.Schema, asked: str | None, where: str) -> str:
    candidates: list[str] = [field.name for field in schema if _holds_bytes(plain_type(field.type))]
    if asked is None and len(candidates) == 1:
        return candidates[0]
    if asked is not None and candidates.count(asked) == 1:
        return asked
    expected = "a column of image bytes (binary, or the struct of bytes and path of Hugging Face)"
    got = f"got {asked!r}" if asked is not None else f"found {', '.join(map(repr, candidates)) or 'none'}"
    raise ConfigError(
        f"Option --image-column: expected {expected}, {got}; {where} has {_listed(schema)}. "
        "Name the one that is meant; for a column of URIs, use --format manifest."
    )


def _name_column(option: str, rule: str, auto: str, schema: pa.Schema, where: str) -> str | None:
    if rule == "none" or (rule == "auto" and auto not in schema.names):
        return None
    column = auto if rule == "auto" else rule.removeprefix("column:")
    if schema.get_field_index(column) < 0:
        raise ConfigError(f"Option {option}: expected a column {column!r} in {where}, which has {_listed(schema)}.")
    kind = plain_type(schema.field(column).type)
    if str(kind) not in ("string", "large_string", "string_view", "bool", "null") and not pa.types.is_integer(kind):
        raise ConfigError(
            f"Option {option}: expected strings, integers or booleans in column {column!r} of {where}, got {kind}. "
            f"Convert it, or use {option} none or another column:NAME."
        )
    return column


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return a type without dictionaries, and without extension types, which not every process knows, at any depth."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(plain_type(kind.value_type)))
    return kind


def fields_of(kind: pa.DataType) -> dict[str, pa.DataType]:
    """Return the types of a struct's fields by name; none for another type."""
    return {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}


def _holds_bytes(kind: pa.DataType) -> bool:
    fields = fields_of(kind)
    if fields:  # as the Hugging Face feature `Image` is stored
        return "bytes" in fields and set(fields) <= {"bytes", "path"} and _holds_bytes(fields["bytes"])
    return str(kind) in ("binary", "large_binary", "binary_view")


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Return what the integers of a column stand for, where the Hugging Face feature `ClassLabel` says it."""
    feature = _features((schema.metadata or {}).get(b"huggingface", b"{}")).get(column)
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return names if isinstance(names, list) and pa.types.is_integer(plain_type(schema.field(column).type)) else None


@lru_cache(maxsize=64)  # asked for with each batch
def _features(metadata: bytes) -> dict[str, Any]:
    try:
        features = json.loads(metadata)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _listed(schema: pa.Schema) -> str:
    kinds = ((field.name, str(field.type)) for field in schema)
    return ", ".join(f"{name} ({kind if len(kind) <= 60 else kind[:59] + '…'})" for name, kind in kinds) or "no columns"
