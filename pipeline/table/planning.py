"""Plan a source: compare its listing with what the table's plans promise, and promise what is missing.

The listing streams through: of each image only digests stay in memory, and of the images to plan no more than one plan.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.digests import first_of_each
from pipeline.errors import TransientError
from pipeline.refs import REF_SCHEMA, extra_schema, stored, unify
from pipeline.table.listing import Listing, Planned, as_stored, with_columns
from pipeline.table.plan import (
    UNITS_PER_PLAN,
    Plan,
    Unit,
    committed_names,
    list_plans,
    plan_batches,
    unit_lengths,
    unit_numbers,
    write_plan,
)
from pipeline.table.promises import NOWHERE, Known, Promises, know
from pipeline.table.schema import Table

logger = logging.getLogger(__name__)

#: Seconds between two lines that say how far the listing is.
_LOG_EVERY_S = 5.0


def load_promises(table: Table) -> Promises:
    """Read every plan of a table."""
    promises = Promises()
    for plan in list_plans(table):
        promises.load(table, plan)
    return promises


def plan_source(table: Table, listing: Listing, prune: bool = False) -> Planned:
    """Plan the images of a source that no plan holds yet, and those that have changed.

    Args:
        table: Where the plans belong.
        listing: The source.
        prune: Take back what this source promised in an earlier run and has no more.

    Returns:
        What there is to do, and what was found.

    Raises:
        ConfigError: An extra column has another type than the table's.
        OSError: The source can't be listed, or a plan not be written.
    """
    started = time.perf_counter()
    promises = load_promises(table)
    planner = _Planner(table, promises, listing)
    planner.list_all()
    # A source that shows nothing is rather a lost mount than one whose images are all gone.
    removed, pruned = (0, 0) if listing.limit or not planner.num_listed else planner.find_removed(prune)
    units, others, plan_units = planner.units_now()
    return Planned(
        source=listing.source,
        units=units,
        others=others,
        num_listed=planner.num_listed,
        new=planner.new,
        changed=planner.changed,
        removed=removed,
        pruned=pruned,
        repeated=planner.repeated,
        columns=planner.columns,
        replaced=planner.replaced_by_pending(),
        plans=promises.plans,
        plan_units=plan_units,
        seconds=time.perf_counter() - started,
    )


@dataclass
class _Planner:
    table: Table
    promises: Promises
    listing: Listing
    num_listed: int = 0
    new: int = 0
    changed: int = 0
    repeated: int = 0
    columns: pa.Schema = field(init=False)
    _waiting: list[pa.Table] = field(default_factory=list)
    _num_waiting: int = 0
    _first: bool = True

    def __post_init__(self) -> None:
        self._committed = committed_names(self.table)
        self._unify()
        earlier = self._container_size()
        self._unit_size = earlier if earlier and self.listing.containers else self.listing.unit_size

    def _container_size(self) -> int | None:
        """Return the unit size that cut containers out of files in earlier runs: their names go by it, table-wide."""
        return next((plan.unit_size for plan in self.promises.plans if plan.containers and plan.num_units), None)

    def _unify(self) -> None:
        known = [(f"the table {self.table.uri}", plan.columns) for plan in self.promises.plans]
        self.columns = unify([*known, (f"the source ({self.listing.source})", stored(self.listing.columns))])

    def list_all(self) -> None:
        logged_at = time.monotonic()
        for refs in self.listing.refs(self._unit_size):
            if self.listing.limit is not None:
                refs = refs.slice(0, self.listing.limit - self.num_listed)
            self._take(as_stored(refs))
            if time.monotonic() - logged_at > _LOG_EVERY_S:
                logged_at = time.monotonic()
                logger.info("Listing the source: %d so far.", self.num_listed)
            if self.listing.limit is not None and self.num_listed >= self.listing.limit:
                break
        while self._waiting:
            self._write_plan()

    def _take(self, refs: pa.Table) -> None:
        """Sort a batch of the listing into known, changed and new; keep the latter two until they fill a plan."""
        self.num_listed += len(refs)
        known = know(refs, self.listing.containers)
        first = first_of_each(known.uris)
        if len(first) < len(refs):
            self.repeated += len(refs) - len(first)
            refs, known = refs.take(pa.array(first)), _rows(known, first)
        places = self.promises.find(known)
        there = places >= 0
        repeated = np.zeros(len(refs), bool)
        repeated[there] = self.promises.mark_listed(places[there])
        self.repeated += int(repeated.sum())
        holders, former = np.full(len(refs), NOWHERE, np.int32), np.full(len(refs), NOWHERE, np.int32)
        holders[there], former[there] = (
            self.promises.holders(places[there]),
            self.promises.former_holders(places[there]),
        )
        new = (~there | (holders == NOWHERE)) & ~repeated
        changed = np.zeros(len(refs), bool)
        changed[there] = self.promises.differs(_rows(known, np.flatnonzero(there)), places[there])
        # What is pending is read as it is by now; there is no need to plan it anew.
        changed &= ~new & ~repeated & np.isin(holders, self._committed_ordinals(holders))
        self.new, self.changed = self.new + int(new.sum()), self.changed + int(changed.sum())
        self.promises.note(_rows(known, np.flatnonzero(~there)))
        wanted = np.flatnonzero(new | changed)
        if len(wanted):
            self._wait(refs.take(pa.array(wanted)), self._names(np.where(new, former, holders)[wanted]))

    def _committed_ordinals(self, ordinals: NDArray[np.int32]) -> list[int]:
        there = (int(ordinal) for ordinal in np.unique(ordinals) if ordinal >= 0)
        return [ordinal for ordinal in there if self.promises.units[ordinal][1].name in self._committed]

    def _names(self, ordinals: NDArray[np.int32]) -> pa.Array:
        names = {
            ordinal: self.promises.units[ordinal][1].name for ordinal in np.unique(ordinals).tolist() if ordinal >= 0
        }
        return pa.array([names.get(ordinal) for ordinal in ordinals.tolist()], pa.string())

    def _wait(self, refs: pa.Table, replaces: pa.Array) -> None:
        self._waiting.append(refs.append_column("replaces", replaces))
        self._num_waiting += len(refs)
        while self._num_waiting >= self._plan_rows:
            self._write_plan()

    @property
    def _plan_rows(self) -> int:
        return UNITS_PER_PLAN * (1 if self.listing.containers else self._unit_size)

    def _write_plan(self) -> None:
        """Write one plan of what is waiting; where another run took the number, leave out what that one promises."""
        columns = pa.schema([]) if self.listing.containers else self.columns
        waiting = pa.concat_tables(with_columns(part, columns) for part in self._waiting)
        refs, rest = waiting.slice(0, self._plan_rows), waiting.slice(self._plan_rows)
        containers = self.listing.containers
        lengths = unit_lengths(len(refs), 1 if containers else self._unit_size, growing=self._first and not containers)
        plan = self._put(refs, lengths)
        if plan is None:
            refs = self._not_promised_meanwhile(refs)
            self._waiting = [part for part in (refs, rest) if len(part)]
        else:
            rows = refs.append_column("unit", unit_numbers(lengths))
            starts = np.cumsum([0, *lengths]).tolist()
            self.promises.add_plan(plan, map(rows.slice, starts, lengths))
            self._first = False
            self._waiting = [rest] if len(rest) else []
        self._num_waiting = sum(map(len, self._waiting))

    def _put(self, refs: pa.Table, lengths: list[int]) -> Plan | None:
        return write_plan(
            self.table,
            self.promises.plans[-1].sequence + 1 if self.promises.plans else 0,
            self.listing.promise,
            self.listing.source,
            refs,
            lengths,
            containers=self.listing.containers,
            unit_size=self._unit_size,
            columns=self.columns,
            opened_with=self.listing.opened_with,
        )

    def _not_promised_meanwhile(self, refs: pa.Table) -> pa.Table:
        before = len(self.promises.units)
        for plan in list_plans(self.table, self.promises.plans[-1].sequence + 1 if self.promises.plans else 0):
            self.promises.load(self.table, plan)
        self._unify()
        if self.listing.containers and self._container_size() != self._unit_size:
            raise TransientError("Another run has begun with another --unit-size. Run again, to go by that one.")
        places = self.promises.find(know(refs, self.listing.containers))
        mine = self.promises.holders(places) < before  # held by no unit, or by the one that is to be replaced
        return refs.filter(pa.array(mine))

    def find_removed(self, prune: bool) -> tuple[int, int]:
        mine = np.asarray([plan.source == self.listing.source for plan, _ in self.promises.units], bool)
        places = self.promises.unlisted(mine)
        if not prune or not len(places):
            return len(places), 0
        holders = self.promises.holders(places)
        gone = np.zeros(len(self.promises), bool)
        gone[places[np.isin(holders, self._committed_ordinals(holders))]] = True
        pruned = 0
        wanted_plans = {plan.sequence for plan, _ in self.promises.units if plan.source == self.listing.source}
        for plan in [plan for plan in self.promises.plans if plan.sequence in wanted_plans]:
            parts = []
            for refs in plan_batches(self.table, plan):
                if not plan.num_units:
                    break
                at = self.promises.find(know(refs, self.listing.containers))
                taken = np.flatnonzero(gone[at])
                gone[at[taken]] = False
                names = self._names(self.promises.holders(at[taken]))
                columns = [*REF_SCHEMA.names, *extra_schema(refs.schema).names]
                parts.append(refs.select(columns).take(pa.array(taken)).append_column("replaces", names))
            found = pa.concat_tables(parts, promote_options="default")
            if not len(found):
                continue
            taken_back = self._put(found, [])
            if taken_back is None:
                raise TransientError("Another run has planned on this table meanwhile. Run again with --prune.")
            unit = pa.array(np.full(len(found), NOWHERE, np.int32))
            self.promises.add_plan(taken_back, iter([found.append_column("unit", unit)]))
            pruned += len(found)
        return len(places), pruned

    def units_now(self) -> tuple[list[Unit], list[Unit], dict[str, list[Unit]]]:
        """Return the units that are this source's to do, those of other sources that it needs, and all units by plan.

        A unit is read from the source that promised it. Those that are pending are this source's to do also where none
        of their images is listed any more: each of them must end in a row or a reject.
        """
        listed, promised = self.promises.listed(), self.promises.promised()
        mine: list[Unit] = []
        others: list[Unit] = []
        plans = self.promises.units_by_plan()
        for ordinal, (plan, unit) in enumerate(self.promises.units):
            now = plans[plan.name][unit.number]
            pending = now.name not in self._committed and bool(promised[ordinal])
            own = plan.source == self.listing.source
            if listed[ordinal] and (own or not pending):
                mine.append(now)
            elif listed[ordinal]:
                others.append(now)
            elif own and pending and self.listing.limit is None:
                mine.append(now)
        return mine, others, plans

    def replaced_by_pending(self) -> set[str]:
        return self.promises.replaced_by([unit.name not in self._committed for _, unit in self.promises.units])


def _rows(known: Known, rows: NDArray[np.int64]) -> Known:
    return Known(known.uris[rows], known.versions[rows], known.details[rows])
