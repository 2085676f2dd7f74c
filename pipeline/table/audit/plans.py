"""Read a table's plans as far as they can be read."""

from __future__ import annotations

import io
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from pipeline.errors import TableError
from pipeline.table.audit.findings import Findings
from pipeline.table.audit.holders import Holders
from pipeline.table.plan import Plan, plan_numbers, read_plan, row_groups
from pipeline.table.schema import Table, sequence_of

_PARALLEL_READS = 16


def read_plans(table: Table, start: int, findings: Findings) -> dict[int, Plan | None]:
    """Return the plans from a number on, by their numbers and in order; None for one that is damaged."""

    def read(sequence: int) -> Plan | None:
        uri = table.plan_uri(sequence)
        try:
            plan = read_plan(table, sequence)
            if sequence_of(plan.name) != sequence:
                raise ValueError(f"Expected plan {sequence} in {uri}, got {plan.name}. Restore it.")
        except OSError as error:  # of the storage; or Arrow's, for a damaged footer
            table.store.read_bytes(uri)
            findings.add("plans", uri, f"Expected a plan, but it is damaged ({error}). Restore it.")
            return None
        except (TableError, ValueError) as error:
            findings.add("plans", uri, str(error))
            return None
        return plan

    numbers = plan_numbers(table, start)
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        return dict(zip(numbers, pool.map(read, numbers), strict=True))


def load_plan(
    table: Table, plan: Plan, holders: Holders, committed: Collection[str], followed: bool, findings: Findings
) -> bool:
    """Take a plan in; return whether it could be.

    Args:
        table: Whose plan it is.
        plan: Its description.
        holders: Where it goes.
        committed: The names of committed units.
        followed: Whether what it takes back is out.
        findings: Where breaches go.
    """
    uri = table.plan_uri(plan.sequence)
    data = table.store.read_bytes(uri)  # all of it, so that from here on every error is one of its content
    try:
        holders.add_plan(plan, row_groups(io.BytesIO(data)), committed, followed)
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        findings.add("plans", uri, f"Expected the rows of plan {plan.name}, but it is damaged: {error}. Restore it.")
        return False
    return True
