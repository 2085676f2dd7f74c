"""The cells of a manifest: as text, with plain types, and without the secrets that URIs may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.sources.rows import plain_type

# User info, or a query that signs a request, anywhere in a text; what `storage.scrub` would cut out.
_SECRET = r"://[^/\s]*@|://\S*\?\S*(?i:signature|credential|token|sig|sas)[^=&\s]*="  # noqa: S105


def texts(part: pa.RecordBatch, column: str | None) -> list[str | None]:
    """Return a column as text, with None for empty text and where there is no such column."""
    if column is None:
        return [None] * len(part)
    return [text or None for text in _plain(part.column(column)).cast(pa.string()).to_pylist()]


def shown_texts(part: pa.RecordBatch, column: str | None) -> list[str | None]:
    """Return a column as `texts` does, without secrets."""
    values: list[str | None] = _without_secrets(pa.array(texts(part, column), pa.string())).to_pylist()
    return values


def extra_values(values: pa.Array, empty_is_null: bool) -> pa.Array:
    """Return a column that travels, with its plain type and without secrets.

    Args:
        values: The column.
        empty_is_null: Whether empty text stands for no value.
    """
    values = _plain(values)
    if empty_is_null and pa.types.is_string(values.type):
        # Not if_else, which in pyarrow 17 damages a slice of strings.
        values = pc.replace_with_mask(values, pc.equal(values, ""), pa.scalar(None, pa.string()))
    return _without_secrets(values)


def _plain(values: pa.Array) -> pa.Array:
    kind = plain_type(values.type)
    return values if kind == values.type else values.cast(kind)


def _without_secrets(values: pa.Array) -> pa.Array:
    """Redact URIs in text, at any depth, where one has user info or a signature."""
    if not any(pc.any(pc.match_substring_regex(each, _SECRET)).as_py() for each in _all_texts(values)):
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
