"""The plan: which images a run promises, cut into units before any work starts."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import TransientError
from pipeline.table.schema import PLAN_SCHEMA, Table, unit_name


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of a plan.

    Args:
        plan: The plan's name.
        number: Its place in the plan.
        num_images: How many images it promises.
    """

    plan: str
    number: int
    num_images: int


def planned_refs(table: Table) -> pa.Table:
    """Return the refs of every plan in the table: the columns of `PLAN_SCHEMA` and ``plan``."""
    parts = []
    for name in storage.list_names(f"{table.uri}/plans"):
        plan = name.removesuffix(".parquet")
        part = pq.read_table(storage.local_path(table.plan_uri(plan)))
        parts.append(part.append_column("plan", pa.array([plan] * len(part), pa.string())))
    if not parts:
        return PLAN_SCHEMA.append(pa.field("plan", pa.string())).empty_table()
    return pa.concat_tables(parts)


def add_plan(table: Table, promise: str, refs: pa.Table, unit_size: int) -> str:
    """Write the plan for images that no plan holds yet.

    The name is a digest of the promise and the refs, and the file is never replaced: a run that plans the same images
    again finds the plan that stands, with its units.

    Args:
        table: Where the plan belongs.
        promise: What each image is to become, see `pipeline.table.schema.TableInfo.digest`.
        refs: The images, a table of `pipeline.refs.REF_SCHEMA`.
        unit_size: Images a unit.

    Returns:
        The plan's name.
    """
    digest = hashlib.sha256(promise.encode())
    for batch in refs.to_batches(max_chunksize=65536):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            digest.update(json.dumps(row).encode())
    plan = digest.hexdigest()[:16]
    units = pa.array(np.arange(len(refs)) // unit_size, pa.int32())
    planned = refs.add_column(2, PLAN_SCHEMA.field("unit"), units).cast(PLAN_SCHEMA)
    buffer = io.BytesIO()
    # A row group is a unit, so that a task reads the refs of its unit and nothing else.
    pq.write_table(planned, buffer, row_group_size=unit_size, compression="zstd")
    storage.put_if_absent(table.plan_uri(plan), buffer.getvalue())
    return plan


def unit_refs(table: Table, unit: Unit) -> pa.Table:
    """Read what one unit promises.

    Returns:
        A table of `PLAN_SCHEMA`.
    """
    with pq.ParquetFile(storage.local_path(table.plan_uri(unit.plan))) as file:
        refs = file.read_row_group(unit.number)
    if len(refs) != unit.num_images or set(pc.unique(refs["unit"]).to_pylist()) != {unit.number}:
        raise TransientError(
            f"Expected {unit.num_images} images of unit {unit.number} in {table.plan_uri(unit.plan)}, "
            f"got {len(refs)} of other units. The plan was changed; restore it."
        )
    return refs


def list_units(planned: pa.Table) -> list[Unit]:
    """Return every unit in what `planned_refs` returned, in order."""
    counts = planned.group_by(["plan", "unit"]).aggregate([("uri", "count")])
    counts = counts.sort_by([("plan", "ascending"), ("unit", "ascending")])
    columns = (counts[name].to_pylist() for name in ("plan", "unit", "uri_count"))
    return [Unit(*values) for values in zip(*columns, strict=True)]


def committed_names(table: Table) -> set[str]:
    """Return the names of the committed units' data files, without their suffix."""
    return {name.removesuffix(".parquet") for name in storage.list_names(f"{table.uri}/data")}


def plan_missing(table: Table, promise: str, refs: pa.Table, unit_size: int) -> tuple[list[Unit], int]:
    """Plan the images that no plan holds yet.

    Args:
        table: Where the plan belongs.
        promise: What each image is to become, see `add_plan`.
        refs: All images of a source, a table of `pipeline.refs.REF_SCHEMA`.
        unit_size: Images a unit.

    Returns:
        Every unit, of any plan, that holds one of these images; and how many of the images have changed since the unit
        that holds them was committed.
    """
    with storage.lock(f"{table.uri}/plans/.lock"):  # two runs whose listings differ must not plan the same image twice
        planned = _plan_new(table, promise, refs, unit_size)
    listed = refs["uri"].combine_chunks()
    mine = planned.filter(pc.is_in(planned["uri"], listed))
    wanted = {(unit.plan, unit.number) for unit in list_units(mine)}
    units = [unit for unit in list_units(planned) if (unit.plan, unit.number) in wanted]
    versions = refs["version"].take(pc.index_in(mine["uri"], listed))
    changed = mine.filter(pc.not_equal(mine["version"], versions)).select(["plan", "unit"]).to_pylist()
    committed = committed_names(table)
    return units, sum(unit_name(row["plan"], row["unit"]) in committed for row in changed)


def _plan_new(table: Table, promise: str, refs: pa.Table, unit_size: int) -> pa.Table:
    planned = planned_refs(table)
    new = refs.filter(pc.invert(pc.is_in(refs["uri"], planned["uri"].combine_chunks())))
    if len(new):
        add_plan(table, promise, new, unit_size)
        planned = planned_refs(table)
    return planned
