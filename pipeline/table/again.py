"""Promise images again that a plan has promised already, in new units that take the place of the old ones."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.table.amend import read_whole
from pipeline.table.listing import Planned, with_columns
from pipeline.table.plan import (
    UNITS_PER_PLAN,
    Plan,
    Unit,
    committed_names,
    list_plans,
    ref_columns,
    unit_lengths,
    unit_refs,
    write_plan,
)
from pipeline.table.planning import load_promises
from pipeline.table.promises import Promises, know
from pipeline.table.schema import Table

_PARALLEL_READS = 16
#: Gives the refs to promise again, by what the plans say by now; each with the unit that it ``replaces``.
Wanted = Callable[[Promises], Iterator[tuple[Plan, pa.Table]]]


def promise_again(table: Table, promise: str, promises: Promises, wanted: Wanted) -> None:
    """Write plans of images that are promised already; whoever else does the same at the same moment, does it once.

    Args:
        table: Where the plans belong.
        promise: What each image is to become, see `pipeline.table.info.TableInfo.digest`.
        promises: What the table's plans add up to; what is planned is added.
        wanted: Which; asked again after each plan, until nothing is left to promise.
    """
    while (found := next(wanted(promises), None)) is not None:
        plan, refs = found
        last = promises.plans[-1]
        size = 1 if plan.containers else plan.unit_size
        refs = with_columns(refs, pa.schema([]) if plan.containers else last.columns).slice(0, UNITS_PER_PLAN * size)
        write_plan(
            table,
            last.sequence + 1,
            promise,
            plan.source,
            refs,
            unit_lengths(len(refs), size, growing=False),
            containers=plan.containers,
            unit_size=plan.unit_size,
            columns=last.columns,
            opened_with=plan.opened_with,
        )
        for new in list_plans(table, last.sequence + 1):  # ours, or that of another run which took the number
            promises.load(table, new)


def replan(table: Table, promise: str, planned: Planned, names: Collection[str]) -> Planned:
    """Promise the images of pending units again that can't be committed any more, and take in what other runs did.

    Args:
        table: Where the units are.
        promise: What each image is to become.
        planned: What there was to do.
        names: The units' names; none to take in only what other runs have planned in place of this run's units.

    Returns:
        What there is to do by now.
    """
    if not names and not list_plans(table, planned.plans[-1].sequence + 1):
        return planned
    committed = committed_names(table)

    def wanted(promises: Promises) -> Iterator[tuple[Plan, pa.Table]]:
        for ordinal, (plan, unit) in enumerate(promises.units):
            bound = unit.name in names and unit.name not in committed
            if bound and len(refs := _held(promises, ordinal, unit_refs(table, unit))):
                yield plan, refs

    promises = load_promises(table)
    promise_again(table, promise, promises, wanted)
    return _follow(table, planned, promises, committed)


def _follow(table: Table, planned: Planned, promises: Promises, committed: Collection[str]) -> Planned:
    """Return what a run has to do once plans have taken images out of its units."""
    plans, known = promises.units_by_plan(), {plan.name for plan in planned.plans}
    units, others = list(planned.units), list(planned.others)
    # And the units that took their place, as often as that has happened.
    followed = {unit.name for unit in [*units, *others]}
    for plan in promises.plans:
        for unit in [] if plan.name in known else plans.get(plan.name, []):
            if followed.isdisjoint(unit_refs(table, unit)["replaces"].unique().to_pylist()):
                continue
            followed.add(unit.name)
            mine = plan.source == planned.source or unit.name in committed
            (units if mine else others).append(unit)
    now = [plans[unit.plan][unit.number] for unit in units]
    return replace(
        planned,
        units=[unit for unit in now if unit.num_images != 0 or unit.name in committed],
        others=[held for unit in others if (held := plans[unit.plan][unit.number]).num_images != 0],
        plans=promises.plans,
        plan_units=plans,
        replaced=planned.replaced | promises.replaced_by([u.name not in committed for _, u in promises.units]),
    )


def plan_retry(table: Table, promise: str, codes: Collection[str]) -> dict[str, Planned]:
    """Promise rejects again, and find out what is pending.

    A reject of a container makes the whole container pending: its other images are copied, not embedded again.

    Args:
        table: Whose rejects.
        promise: What each image is to become.
        codes: Which rejects, by their codes; none for all.

    Returns:
        By the source: what there is to do.
    """
    started = time.perf_counter()
    again: Counter[str] = Counter()
    committed = committed_names(table)
    rejected = _rejects(table, committed, codes)

    def wanted(promises: Promises) -> Iterator[tuple[Plan, pa.Table]]:
        # Whose rejects are in a unit that is pending are taken up already: a committed one holds them no more.
        waiting: list[pa.Table] = []
        last: Plan | None = None
        for ordinal, (plan, unit) in enumerate(promises.units):
            if unit.name not in rejected:
                continue
            if last is not None and (plan.source, plan.unit_size) != (last.source, last.unit_size) and waiting:
                break
            refs = _held(promises, ordinal, unit_refs(table, unit))
            if not plan.containers:
                refs = refs.filter(pc.is_in(refs["uri"], value_set=rejected[unit.name]))
            if len(refs):
                waiting.append(refs)
                last = plan
        if last is not None:
            yield last, pa.concat_tables(waiting, promote_options="default")

    promises = load_promises(table)
    before = len(promises.plans)
    promise_again(table, promise, promises, wanted)
    plans = promises.units_by_plan()
    sources: dict[str, list[Unit]] = {}
    for number, plan in enumerate(promises.plans):
        units = [unit for unit in plans.get(plan.name, []) if unit.name in committed or unit.num_images != 0]
        sources.setdefault(plan.source, []).extend(units)
        again[plan.source] += sum(unit.num_images or 1 for unit in units) if number >= before else 0
    return {
        source: Planned(
            source=source,
            units=units,
            others=[],
            again=again[source],
            columns=promises.plans[-1].columns,
            replaced=_replaced_by(promises, units),
            plans=promises.plans,
            plan_units=plans,
            seconds=time.perf_counter() - started,
        )
        for source, units in sources.items()
        if any(unit.name not in committed for unit in units)
    }


def _held(promises: Promises, ordinal: int, refs: pa.Table) -> pa.Table:
    """Return those of a unit's refs that no later plan has promised, as refs which replace that unit's rows."""
    plan, unit = promises.units[ordinal]
    holders = promises.holders(promises.find(know(refs, plan.containers)))
    kept = ref_columns(refs).filter(pa.array(holders == ordinal))
    return kept.append_column("replaces", pa.repeat(pa.scalar(unit.name, pa.string()), len(kept)))


def _rejects(table: Table, names: Collection[str], codes: Collection[str]) -> dict[str, pa.Array]:
    """Return the URIs of the rejects of committed units, by the units' names."""

    def read(name: str) -> pa.Array:
        rows = read_whole(table, table.rejects_uri(name), ["uri", "code"])
        wanted = rows.filter(pc.is_in(rows["code"], pa.array(sorted(codes), pa.string()))) if codes else rows
        return wanted["uri"].combine_chunks()

    names = sorted(names)
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        return {name: uris for name, uris in zip(names, pool.map(read, names), strict=True) if len(uris)}


def _replaced_by(promises: Promises, units: Collection[Unit]) -> set[str]:
    names = {unit.name for unit in units}
    return promises.replaced_by([unit.name in names for _, unit in promises.units])
