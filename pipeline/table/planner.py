"""What goes through a source's listing and writes plans of what is new and changed.

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
from pipeline.refs import stored, unify
from pipeline.table.listing import Listing, as_stored, with_columns
from pipeline.table.plan import (
    UNITS_PER_PLAN,
    Plan,
    Unit,
    committed_names,
    list_plans,
    unit_lengths,
    unit_numbers,
    write_plan,
)
from pipeline.table.promises import NOWHERE, Known, Promises, know
from pipeline.table.schema import Table

logger = logging.getLogger(__name__)

#: Seconds between two lines that say how far the listing is.
_LOG_EVERY_S = 5.0


@dataclass
class Planner:
    """Compares a listing with promises, and writes the plans that are missing.

    Args:
        table: Where the plans belong.
        promises: What the table's plans add up to; what is planned is added.
        listing: The source.

    Attributes:
        num_listed: Refs that were listed, those that come twice included.
        new: Refs that no unit held.
        changed: Refs that are others than those that were embedded.
        repeated: Refs that come again.
        columns: The extra columns of the table and of the source.
    """

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
        """Go through the listing, and plan what is to be planned.

        Raises:
            ConfigError: An extra column has another type than the table's.
            OSError: The source can't be listed, or a plan not be written.
        """
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
        changed &= ~new & ~repeated & np.isin(holders, self.committed_among(holders))
        self.new, self.changed = self.new + int(new.sum()), self.changed + int(changed.sum())
        self.promises.note(_rows(known, np.flatnonzero(~there)))
        wanted = np.flatnonzero(new | changed)
        if len(wanted):
            self._wait(refs.take(pa.array(wanted)), self.names(np.where(new, former, holders)[wanted]))

    def committed_among(self, ordinals: NDArray[np.int32]) -> list[int]:
        """Return which of some units, by their ordinals among the promises, are committed."""
        there = (int(ordinal) for ordinal in np.unique(ordinals) if ordinal >= 0)
        return [ordinal for ordinal in there if self.promises.units[ordinal][1].name in self._committed]

    def names(self, ordinals: NDArray[np.int32]) -> pa.Array:
        """Return the names of units by their ordinals, null for `NOWHERE`."""
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
        plan = self.put(refs, lengths)
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

    def put(self, refs: pa.Table, lengths: list[int]) -> Plan | None:
        """Write the next plan, of units of some lengths; None where another run has taken its number."""
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
        """Return the names of units whose rows pending units are to replace."""
        return self.promises.replaced_by([unit.name not in self._committed for _, unit in self.promises.units])


def _rows(known: Known, rows: NDArray[np.int64]) -> Known:
    return Known(known.uris[rows], known.versions[rows], known.details[rows])
