"""Take back what a source promised in an earlier run and has no more."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.errors import TransientError
from pipeline.refs import REF_SCHEMA, extra_schema
from pipeline.table.plan import plan_batches
from pipeline.table.planner import Planner
from pipeline.table.promises import NOWHERE, know


def find_removed(planner: Planner, prune: bool) -> tuple[int, int]:
    """Return how many images a source promised earlier and has no more, and how many of them are taken back.

    Args:
        planner: Has gone through the source's listing.
        prune: Whether to take back those that are committed.

    Raises:
        TransientError: Another run has planned meanwhile.
    """
    promises, source = planner.promises, planner.listing.source
    mine = np.asarray([plan.source == source for plan, _ in promises.units], bool)
    places = promises.unlisted(mine)
    if not prune or not len(places):
        return len(places), 0
    holders = promises.holders(places)
    gone = np.zeros(len(promises), bool)
    gone[places[np.isin(holders, planner.committed_among(holders))]] = True
    pruned = 0
    wanted = {plan.sequence for plan, _ in promises.units if plan.source == source}
    for plan in [plan for plan in promises.plans if plan.sequence in wanted]:
        parts = []
        for refs in plan_batches(planner.table, plan):
            if not plan.num_units:
                break
            at = promises.find(know(refs, planner.listing.containers))
            taken = np.flatnonzero(gone[at])
            gone[at[taken]] = False
            names = planner.names(promises.holders(at[taken]))
            columns = [*REF_SCHEMA.names, *extra_schema(refs.schema).names]
            parts.append(refs.select(columns).take(pa.array(taken)).append_column("replaces", names))
        found = pa.concat_tables(parts, promote_options="default")
        if not len(found):
            continue
        taken_back = planner.put(found, [])
        if taken_back is None:
            raise TransientError("Another run has planned on this table meanwhile. Run again with --prune.")
        unit = pa.array(np.full(len(found), NOWHERE, np.int32))
        promises.add_plan(taken_back, iter([found.append_column("unit", unit)]))
        pruned += len(found)
    return len(places), pruned
