"""Check one data or rejects file by itself: its columns, its metadata, its values."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.contract import FeatureContract
from pipeline.errors import RejectCode, TableError
from pipeline.table.amend import told
from pipeline.table.info import TableInfo
from pipeline.table.plan import Plan
from pipeline.table.schema import PREDICTION_SCHEMA, REJECT_SCHEMA, Table, data_schema

Folder = Literal["data", "rejects"]

_SHA256 = r"^[0-9a-f]{64}$"
_STAGES = ("read", "decode", "embed")


@dataclass(frozen=True, slots=True)
class Part:
    """A data or rejects file that is to be there.

    Args:
        folder: Which of the two.
        name: The unit's name.
        plan: The unit's plan; None where no plan tells what the file should hold.
        number: The unit's number.
    """

    folder: Folder
    name: str
    plan: Plan | None
    number: int

    @property
    def path(self) -> str:
        """Where it is in the table, as manifests name it."""
        return f"{self.folder}/{self.name}.parquet"


@dataclass(slots=True)
class Content:
    """What a file holds.

    Args:
        num_bytes: Its length; None where there is no such file.
        sha256: Its digest (hex).
        problems: What is wrong with it.
        uris: Those of its rows; None where it can't be read.
        reused: How many rows have a copied embedding, as its metadata says.
    """

    num_bytes: int | None = None
    sha256: str = ""
    problems: list[str] = field(default_factory=list)
    uris: pa.ChunkedArray | None = None
    reused: int = 0

    @property
    def num_rows(self) -> int:
        """How many rows it holds, as far as it can be read."""
        return 0 if self.uris is None else len(self.uris)


def examine(table: Table, part: Part, info: TableInfo) -> Content:
    """Read a file, once, and check what can be told from it alone.

    Raises:
        OSError: It can't be read now.
    """
    try:
        data = table.store.read_bytes(f"{table.uri}/{part.path}")
    except FileNotFoundError:
        return Content(problems=["It was listed, but is not there any more. Nothing in this project removes it."])
    content = Content(len(data), hashlib.sha256(data).hexdigest())
    try:
        rows = pq.read_table(io.BytesIO(data))
        rows.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:  # Arrow raises an OSError for damaged content, too
        content.problems.append(f"Expected a Parquet file, but it can't be read: {error}")
        return content
    if "uri" in rows.column_names and rows.schema.field("uri").type == pa.string():
        content.uris = rows["uri"]
    told = _metadata(rows.schema)
    reused = told.get("reused", 0)
    content.reused = min(reused, len(rows)) if isinstance(reused, int) else 0
    expected = _expected(part, info)
    content.problems += [*_metadata_problems(told, part, info), *_column_problems(rows, expected)]
    more = [name for name in rows.column_names if name not in expected.names]
    if more and (part.plan is not None or part.folder == "rejects" or info.dtype is None):
        content.problems.append(f"Expected the columns {', '.join(expected.names)}, got {', '.join(more)} as well.")
    if not content.problems:
        content.problems += _value_problems(rows)
    return content


def _metadata(schema: pa.Schema) -> dict[str, Any]:
    try:
        value: Any = told(schema.metadata)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _metadata_problems(told: dict[str, Any], part: Part, info: TableInfo) -> Iterator[str]:
    if part.plan is None:
        return  # of predictions of a table, which have none; or its plan is missing, which is worse
    expected = {"plan": part.plan.name, "unit": part.number}
    found = {name: told.get(name) for name in expected}
    if found != expected:
        yield f"Expected plan and unit {expected} in its metadata (key vep), got {found}: it is another unit's file."
    try:
        contract = FeatureContract.from_json(told.get("contract") or {}, "its metadata")
    except (TableError, TypeError, ValueError, AttributeError) as error:
        yield f"Expected the table's feature contract in its metadata (key vep): {error}"
        return
    if contract.digest != info.contract.digest:
        yield f"Expected features of {info.contract.describe()}, got {contract.describe()}: they can't be compared."


def _expected(part: Part, info: TableInfo) -> pa.Schema:
    """Return the columns that a file must have; where no plan tells the extra ones, those that every file has."""
    if part.folder == "rejects":
        return REJECT_SCHEMA
    if info.dtype is None:
        return PREDICTION_SCHEMA
    schema = data_schema(info.dtype, info.contract.embedding_dim)
    return schema if part.plan is None else pa.schema([*schema, *_through_parquet(part.plan.columns)])


@lru_cache(maxsize=256)
def _through_parquet(columns: pa.Schema) -> pa.Schema:
    """Return extra columns with the types that they have when they are read back."""
    file = io.BytesIO()
    pq.write_table(columns.empty_table(), file)
    return pq.read_schema(file)


def _column_problems(rows: pa.Table, expected: pa.Schema) -> Iterator[str]:
    for column in expected:
        if column.name not in rows.column_names:
            yield f"Expected a column {column.name} ({column.type}), found none."
            continue
        found = rows.schema.field(column.name).type
        if found != column.type:
            yield f"Expected column {column.name} to be {column.type}, got {found}."
        elif not column.nullable and rows[column.name].null_count:
            yield f"Expected a value in each row of column {column.name}, {rows[column.name].null_count} have none."


def _value_problems(rows: pa.Table) -> Iterator[str]:
    digests = rows["sha256"]
    wrong = digests.filter(pc.invert(pc.match_substring_regex(digests, _SHA256)))
    if len(wrong):
        yield f"Expected 64 hexadecimal digits as each sha256, {len(wrong)} are others, such as {wrong[0].as_py()!r}."
    for name in ("embedding", "probability", "top5_probabilities"):
        if name in rows.column_names:
            yield from _non_finite(rows, name)
    for name, known in (("stage", _STAGES), ("code", tuple(code.value for code in RejectCode))):
        unknown = sorted(set(rows[name].unique().to_pylist()) - set(known)) if name in rows.column_names else []
        if unknown:
            yield f"Expected values of {name} to be {', '.join(known)}; got {', '.join(map(repr, unknown))}."


def _non_finite(rows: pa.Table, name: str) -> Iterator[str]:
    finite: list[NDArray[np.bool_]] = []
    for chunk in rows[name].chunks:
        if pa.types.is_fixed_size_list(chunk.type):
            values = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, chunk.type.list_size)
            finite.append(np.isfinite(values).all(axis=1))
        elif pa.types.is_list(chunk.type):
            finite.append(np.array([np.isfinite(value).all() for value in chunk.to_pylist()], bool))
        else:
            finite.append(np.isfinite(chunk.to_numpy(zero_copy_only=False)))
    wrong = np.flatnonzero(~np.concatenate([*finite, np.ones(0, bool)]))
    if len(wrong):
        yield f"{len(wrong)} rows have infinite or undefined values in {name}; the first: {rows['uri'][wrong[0]]}."
