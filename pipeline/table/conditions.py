"""What a run does where the store of its table doesn't mind the conditions of a PUT, as some S3 stores don't.

The protocol of `pipeline.table.commit` rests on PUTs that fail where somebody else was there before. Without them, one
writer at a time is still right; so a run finds out which store it has, says what it can't promise, and keeps its own
processes out of each other's way.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa

from pipeline.table.amend import take_out
from pipeline.table.close import replaced_rows
from pipeline.table.plan import Plan, committed_names, plan_batches
from pipeline.table.schema import Table, unit_name

logger = logging.getLogger(__name__)

_PARALLEL = 8


def probe(table: Table) -> Table:
    """Return the table with a store that relies on those conditions only which it minds; a warning tells of others.

    Args:
        table: A table that has its table.json, which is written once more as it is to find out.

    Raises:
        OSError: The storage refused.
    """
    store = table.store.probed(table.info_uri)
    if store.conditions != table.store.conditions:
        logger.warning(
            "The store of %s ignores %s. So each file is looked for before it is written, in two steps. One job at a "
            "time is exact, and so is the same command run again; don't run two jobs that write to this table at once.",
            table.uri,
            "If-None-Match (create only what is not there)"
            if not store.conditions.create
            else "If-Match (replace only a known version)",
        )
    return replace(table, store=store)


def take_out_ahead(table: Table, plans: Sequence[Plan], pending: Collection[str]) -> None:
    """Take the rows that pending units replace out of the older ones before the work begins, if that is safer.

    A unit takes them out itself when it is committed, and several do so at once. Where a store can't replace on a
    condition, one of them could put back what another one has just taken out; here, one process does it all.

    Args:
        table: Where the units are.
        plans: The table's plans.
        pending: Names of the units that are about to be committed.

    Raises:
        OSError: The storage refused.
    """
    if table.store.conditions.replace:
        return
    committed = committed_names(table)  # what replaces a unit that isn't, closes it first: see `pipeline.table.close`
    whole: set[str] = set()
    gone: dict[str, list[pa.Array]] = {}
    for plan in plans:
        if not any(unit_name(plan.name, number) in pending for number in range(plan.num_units)):
            continue
        for refs in plan_batches(table, plan):
            if unit_name(plan.name, refs["unit"][0].as_py()) not in pending:
                continue
            for name, uris in replaced_rows(refs, plan.containers).items():
                if name in committed and uris is None:
                    whole.add(name)
                elif name in committed:
                    gone.setdefault(name, []).append(uris)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(lambda name: take_out(table, name, None), whole))
        list(pool.map(lambda name: take_out(table, name, pa.concat_arrays(gone[name])), gone.keys() - whole))
