"""Which units rows are about to leave."""

from __future__ import annotations

from pipeline.table.listing import Planned
from pipeline.table.plan import committed_names, list_plans, plan_batches
from pipeline.table.schema import Table, unit_name


def planned_changes(table: Table, known: Planned) -> set[str]:
    """Return the names of the units that rows are about to be taken out of, by the plans as they are now.

    By units that are pending, and by plans that take images back and aren't done.
    """
    committed = committed_names(table)
    names: set[str] = set()
    for plan in known.plans + list_plans(table, known.plans[-1].sequence + 1):
        if all(unit_name(plan.name, number) in committed for number in range(plan.num_units)) and (
            plan.num_units or table.store.info(table.manifest_uri(plan.name)) is not None
        ):
            continue
        for refs in plan_batches(table, plan):
            number = refs["unit"][0].as_py()
            if number < 0 or unit_name(plan.name, number) not in committed:
                names.update(name for name in refs["replaces"].unique().to_pylist() if name is not None)
    return names
