"""Image refs: what a source promises and a plan writes down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

REF_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image promised by a source.

    Args:
        uri: Where it is; unique within the source.
        version: Changes whenever the image does.
        label: Its class, if the source says one.
        split: ``train``, ``validation`` or ``test``, if the source says so.
    """

    uri: str
    version: str
    label: str | None
    split: str | None


def refs_table(refs: Iterable[ImageRef]) -> pa.Table:
    """Collect image refs, ordered by URI, into a table of `REF_SCHEMA`."""
    columns: list[list[str | None]] = [[], [], [], []]
    for ref in refs:
        for column, value in zip(columns, (ref.uri, ref.version, ref.label, ref.split), strict=True):
            column.append(value)
    arrays = [pa.array(column, pa.string()) for column in columns]
    return pa.Table.from_arrays(arrays, schema=REF_SCHEMA).sort_by("uri")
