"""Plans: what runs have promised, written before any work starts, in a sequence that every run agrees on.

A plan is a Parquet file with one row an image or a container, one row group a unit. Plans are numbered, and each is
created only if its number is free: so two runs that plan at the same moment are put in order, without a lock, by
whatever store holds the table, and the later one sees what the earlier one has promised. What a later plan says of an
image supersedes what an earlier one said.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import TableError, TransientError
from pipeline.refs import REF_NAMES, extra_schema
from pipeline.table.schema import PLAN_SCHEMA, Table, sequence_of, unit_name

#: Units of one plan at most: keeps a plan's footer, which every task reads, below 0.5 MB.
UNITS_PER_PLAN = 256
#: Images of a run's first unit; each of the next ones has twice as many, up to the unit size.
FIRST_UNIT = 64
#: Bytes fetched at a time from a plan in an object store: a unit's row group is some 50 kB.
_PLAN_BLOCK_BYTES = 2**18
_PARALLEL_READS = 16


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of a plan.

    Args:
        plan: The plan's name.
        number: Its place in the plan.
        num_images: How many images it promises; None for a container that nobody has read yet.
    """

    plan: str
    number: int
    num_images: int | None

    @property
    def name(self) -> str:
        """The name that its files share."""
        return unit_name(self.plan, self.number)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan's description, from its footer.

    Args:
        sequence: Its number.
        name: The number and a digest of what it promises; begins the names of its units' files.
        source: The identity of the source that it lists, see `pipeline.sources.Source`.
        containers: Whether its rows are containers.
        unit_size: Images a unit, as it was asked for.
        columns: The extra columns that the table has from this plan on.
        num_units: How many units it has.
        opened_with: The options that open the source again, see `pipeline.sources.described`.
    """

    sequence: int
    name: str
    source: str
    containers: bool
    unit_size: int
    columns: pa.Schema
    num_units: int
    opened_with: dict[str, Any] = field(default_factory=dict, compare=False)


def read_plan(table: Table, sequence: int) -> Plan:
    """Read a plan's description.

    Raises:
        TableError: It is no plan.
    """
    uri = table.plan_uri(sequence)
    try:
        with table.store.open(uri, _PLAN_BLOCK_BYTES) as file:
            value = json.loads(pq.read_metadata(file).metadata[b"vep"])
        columns = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(value.pop("columns"))))
        return Plan(sequence=sequence, columns=columns, **value)
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise TableError(f"Expected a plan in {uri}, but it is damaged ({error}). Restore it.") from None


def list_plans(table: Table, start: int = 0) -> list[Plan]:
    """Return every plan of a table from a number on, in order."""
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        return list(pool.map(lambda sequence: read_plan(table, sequence), plan_numbers(table, start)))


def plan_numbers(table: Table, start: int = 0) -> list[int]:
    """Return the numbers of a table's plans from one on, in order."""
    names = (name.removesuffix(".parquet") for name in table.store.list_names(f"{table.uri}/plans"))
    return sorted(int(name) for name in names if name.isdecimal() and int(name) >= start)


def unit_lengths(num_rows: int, unit_size: int, growing: bool) -> list[int]:
    """Cut the rows of a plan into units.

    Args:
        num_rows: How many.
        unit_size: Rows of a unit.
        growing: Whether the first units are smaller: the engine has work, and the table its first rows, seconds
            earlier; and a run of a few hundred images is more than one unit, whose stages can work at the same time.

    Returns:
        The rows of each unit.
    """
    lengths: list[int] = []
    size = min(FIRST_UNIT, unit_size) if growing else unit_size
    while num_rows:
        lengths.append(min(size, num_rows))
        num_rows -= lengths[-1]
        size = min(2 * size, unit_size)
    return lengths


def unit_numbers(lengths: Sequence[int]) -> pa.Array:
    """Return the column ``unit`` of rows that lie one unit behind the other, by the rows of each unit."""
    return pa.array(np.repeat(np.arange(len(lengths), dtype=np.int32), lengths))


def write_plan(
    table: Table,
    sequence: int,
    promise: str,
    source: str,
    refs: pa.Table,
    unit_lengths: Sequence[int],
    *,
    containers: bool,
    unit_size: int,
    columns: pa.Schema,
    opened_with: Mapping[str, Any] | None = None,
) -> Plan | None:
    """Write a plan, unless its number is taken.

    Args:
        table: Where it belongs.
        sequence: Its number.
        promise: What each image is to become, see `pipeline.table.info.TableInfo.digest`.
        source: The identity of the source.
        refs: What is promised: the columns of `PLAN_SCHEMA` but ``unit``, and extra columns.
        unit_lengths: Rows of each unit, in order; none for a plan that takes promises back.
        containers: Whether the rows are containers.
        unit_size: Images a unit, as it was asked for.
        columns: Every extra column that the table has by now.
        opened_with: The options that open the source again, as plain JSON values without secrets.

    Returns:
        The plan; None where another run took the number.
    """
    units = unit_numbers(unit_lengths) if unit_lengths else pa.array(np.full(len(refs), -1, np.int32))
    names = [*PLAN_SCHEMA.names, *extra_schema(refs.schema).names]
    planned = refs.append_column("unit", units).select(names).combine_chunks()
    digest = hashlib.sha256(f"{promise} {source} ".encode())
    with pa.ipc.new_stream(_Hashing(digest), planned.schema) as stream:
        stream.write_table(planned)
    name = f"{sequence:06d}-{digest.hexdigest()[:12]}"
    plan = Plan(sequence, name, source, containers, unit_size, columns, len(unit_lengths), dict(opened_with or {}))
    description: dict[str, Any] = {
        "name": plan.name,
        "source": source,
        "containers": containers,
        "unit_size": unit_size,
        "columns": base64.b64encode(columns.serialize()).decode(),
        "num_units": plan.num_units,
        "opened_with": plan.opened_with,
    }
    schema = planned.schema.with_metadata({b"vep": json.dumps(description).encode()})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        start = 0
        for length in unit_lengths or [len(planned)]:  # a row group is a unit: a task reads its own and nothing else
            writer.write_table(planned.slice(start, length).cast(schema), row_group_size=length)
            start += length
    if table.store.put_if_absent(table.plan_uri(sequence), buffer.getvalue()):
        return plan
    # The same plan: ours, by a PUT whose answer was lost, or another run's of the same command.
    return plan if read_plan(table, sequence).name == plan.name else None


class _Hashing(io.RawIOBase):
    """A file that keeps a digest of what is written to it."""

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return len(data)


def plan_batches(table: Table, plan: Plan) -> Iterator[pa.Table]:
    """Yield what a plan promises, unit by unit.

    Yields:
        Tables of `PLAN_SCHEMA` and the extra columns.
    """
    with table.store.open(table.plan_uri(plan.sequence)) as stream:
        yield from row_groups(stream)


def row_groups(stream: IO[bytes]) -> Iterator[pa.Table]:
    """Yield the row groups of a Parquet file, of a plan one for each unit."""
    with pq.ParquetFile(stream) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, use_threads=False)


def unit_refs(table: Table, unit: Unit) -> pa.Table:
    """Read what one unit promises.

    Returns:
        A table of `PLAN_SCHEMA` and the extra columns.
    """
    uri = table.plan_uri(sequence_of(unit.plan))
    with table.store.open(uri, _PLAN_BLOCK_BYTES) as stream, pq.ParquetFile(stream) as file:
        refs = file.read_row_group(unit.number, use_threads=False)
    if set(pc.unique(refs["unit"]).to_pylist()) != {unit.number}:
        raise TransientError(f"Expected unit {unit.number} of {uri}, got another. The plan was changed; restore it.")
    return refs


def committed_names(table: Table) -> set[str]:
    """Return the names of the committed units."""
    return {name.removesuffix(".parquet") for name in table.store.list_names(f"{table.uri}/data")}


def ref_columns(refs: pa.Table) -> pa.Table:
    """Return the columns that a source gave, out of what a plan holds."""
    return refs.select([*REF_NAMES, *extra_schema(refs.schema).names])
