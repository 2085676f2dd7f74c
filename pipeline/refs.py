"""Refs: what a source promises and a plan writes down, as Arrow tables. And the names of the columns that are fixed."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from pipeline.errors import ConfigError

#: One row is an image, or a container (a tar shard, a slice of a Parquet file) whose images are known when it is read:
#: then ``num_images`` is how many it holds, null where nobody knows yet. Extra columns of the images follow.
REF_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("num_images", pa.int32()),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
    ]
)
REF_NAMES = tuple(REF_SCHEMA.names)
#: What is known of an image from its source alone; its extra columns follow.
SOURCE_NAMES = ("uri", "label", "split")
#: Columns of data and rejects files that are not the source's to name.
RESERVED_NAMES = frozenset(
    ("uri", "sha256", "label", "split", "width", "height", "embedding", "stage", "code", "message", "version", "unit")
)

#: Splits by the names that people give them, in lower case.
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def extra_schema(schema: pa.Schema) -> pa.Schema:
    """Return the extra columns among those of refs, rows or rejects."""
    return pa.schema([field for field in schema if field.name not in RESERVED_NAMES | {"num_images", "replaces"}])


def extra_name(name: str) -> str:
    """Return the name that a source's own column has in the table: another one where it is taken."""
    return f"source_{name}" if name in RESERVED_NAMES | {"num_images", "replaces"} else name


def stored_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that a column has once it has been through Parquet, which knows no seconds and no `date64`."""
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if pa.types.is_time32(kind) and kind.unit == "s":
        return pa.time32("ms")
    if pa.types.is_date64(kind):
        return pa.date32()
    if pa.types.is_dictionary(kind):
        return stored_type(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(stored_type(field.type)) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(stored_type(kind.value_type)), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(stored_type(kind.value_type)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(stored_type(kind.value_type)))
    return kind


def stored(columns: pa.Schema) -> pa.Schema:
    """Return extra columns with the types that they are stored in; see `stored_type`."""
    return pa.schema([field.with_type(stored_type(field.type)).with_nullable(True) for field in columns])


def unify(schemas: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
    """Put the extra columns of several places together by name.

    Args:
        schemas: Where each schema comes from, for the error, and the schema.

    Raises:
        ConfigError: Two places give a column different types.
    """
    fields: dict[str, tuple[str, pa.Field]] = {}
    for where, schema in schemas:
        for field in schema:
            known_where, known = fields.setdefault(field.name, (where, field.with_nullable(True)))
            if pa.types.is_null(known.type):
                fields[field.name] = (where, field.with_nullable(True))
            elif known.type != field.type and not pa.types.is_null(field.type):
                raise ConfigError(
                    f"Column {field.name!r} is {known.type} in {known_where}, but {field.type} in {where}. One table "
                    "has one type for a column: convert the column, rename it, or use another --table."
                )
    return pa.schema([field for _, field in fields.values()])
