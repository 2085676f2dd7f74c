"""A source on its way into a plan, and what planning finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.refs import REF_SCHEMA, stored_type
from pipeline.table.plan import Plan, Unit


@dataclass(frozen=True, slots=True)
class Listing:
    """A source on its way into a plan.

    Args:
        source: Its identity, see `pipeline.sources.Source`.
        containers: Whether its refs are containers.
        refs: Gives its refs, table by table, for a unit size.
        columns: Its extra columns.
        promise: What each image is to become, see `pipeline.table.info.TableInfo.digest`.
        unit_size: Images a unit.
        limit: Take so many refs only; None for all.
        opened_with: The options that open the source again, see `pipeline.sources.described`.
    """

    source: str
    containers: bool
    refs: Callable[[int], Iterator[pa.Table]]
    columns: pa.Schema
    promise: str
    unit_size: int
    limit: int | None = None
    opened_with: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Planned:
    """What planning found.

    Args:
        source: The identity of the source.
        units: The units that hold the source's images, done or pending, with what each promises by now.
        others: Pending units of other sources that hold some of them; only those sources can bring them to an end.
        columns: Every extra column that the table has by now.
        replaced: Names of units of which rows will be taken out, since pending units hold their images by now.
        plans: The table's plans, in order.
        plan_units: All units of each plan, by its name, with what each promises by now.
        seconds: Time spent.
        num_listed: Refs that the source has.
        new: Refs that no plan held.
        changed: Refs that are others than those that were embedded (bytes, label, split or extra columns).
        removed: Refs that this source had in an earlier run and has no more; 0 where ``limit`` cut the listing.
        pruned: How many of the removed ones are promised no more.
        again: Images whose rejects are taken up again; of a container, all of them count as one.
        repeated: Refs that the source named more than once; each counts once.
    """

    source: str
    units: list[Unit]
    others: list[Unit]
    columns: pa.Schema
    replaced: set[str]
    plans: list[Plan]
    plan_units: dict[str, list[Unit]]
    seconds: float
    num_listed: int = 0
    new: int = 0
    changed: int = 0
    removed: int = 0
    pruned: int = 0
    again: int = 0
    repeated: int = 0


def with_columns(refs: pa.Table, columns: pa.Schema) -> pa.Table:
    """Return refs with all of some extra columns, null where they have none."""
    for column in columns:
        if column.name not in refs.column_names:
            refs = refs.append_column(column, pa.nulls(len(refs), column.type))
    return refs.select([*REF_SCHEMA.names, "replaces", *columns.names])


def as_stored(refs: pa.Table) -> pa.Table:
    """Return refs with their extra columns in the types that a plan stores, so that they compare with it."""
    for place, column in enumerate(refs.schema):
        kind = stored_type(column.type)
        if kind != column.type:
            refs = refs.set_column(place, column.with_type(kind), refs.column(place).cast(kind))
    return refs
