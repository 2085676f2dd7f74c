"""Plan a source: compare its listing with what the table's plans promise, and promise what is missing."""

from __future__ import annotations

import logging
import time

from pipeline.table.listing import Listing, Planned
from pipeline.table.plan import (
    list_plans,
)
from pipeline.table.planner import Planner
from pipeline.table.promises import Promises
from pipeline.table.prune import find_removed
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
    planner = Planner(table, promises, listing)
    planner.list_all()
    # A source that shows nothing is rather a lost mount than one whose images are all gone.
    removed, pruned = (0, 0) if listing.limit or not planner.num_listed else find_removed(planner, prune)
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
