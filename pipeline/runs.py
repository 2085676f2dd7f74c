"""A run: bring every image of a source into a table, however often it is interrupted on the way."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline import cluster, storage
from pipeline.accounts import judge, log_plan, new_work, redacted, skipped_text, write_manifests
from pipeline.contract import require_same_features
from pipeline.engines import choose_engine, cuda_here, require_here, suited
from pipeline.errors import ConfigError, TableError
from pipeline.layout import usual_unit_size
from pipeline.progress import ProgressCallback
from pipeline.run_options import RunOptions, WorkOptions
from pipeline.sources import Source
from pipeline.table import (
    Counts,
    Ledger,
    Listing,
    Planned,
    Table,
    TableInfo,
    check_info,
    committed_names,
    count_codes,
    count_units,
    create_table,
    forget_files,
    make_ledger,
    open_table,
    plan_source,
    probe,
    read_info,
    replan,
    take_back,
    take_out_ahead,
)
from pipeline.targets import Target
from pipeline.task import Outcome, Task
from pipeline.work import work

logger = logging.getLogger(__name__)


def run(
    options: WorkOptions,
    source: Source,
    target: Target,
    plan: Callable[[], Planned],
    on_progress: ProgressCallback | None,
) -> dict[str, Any]:
    """Bring images of a source into a table; its units committed one by one.

    Args:
        options: How.
        source: Where the images are.
        target: What becomes of them, and where it goes.
        plan: Finds out which units there are to do, as `plan_all` does for a whole source.
        on_progress: Called a few times a second while the work goes on.

    Returns:
        The run's record, as plain JSON values.

    Raises:
        ConfigError: It can't be done as asked.
        RunIncomplete: Images are pending; the same call again goes on.
        TooManyRejects: All images are done, but too many of them are rejects.
    """
    started = time.time()
    table, contract = target.table, target.info.contract
    storage.require_folder(table.uri, "--table or --output")
    check_info(table, target.info)
    engine, precision, device = suited(contract, options.engine, options.precision, options.device)
    options = options.model_copy(update={"engine": engine, "precision": precision, "device": device})
    reuse = tuple(_open_reused(uri, options, target.info) for uri in options.reuse)
    if cluster.is_local():
        require_here(options.engine, options.precision, options.device, options.decode)
    if contract.random_weights:
        logger.warning(
            "RANDOM WEIGHTS (%s): the backbone is not trained. Good for a trial; use trained weights for real work.",
            contract.origin,
        )
    planned = plan()
    table = probe(table)
    taken_back = take_back(table, planned.plans, lambda names: forget_files(table, names))
    counts = _count(table, planned)
    log_plan(planned, _ledger(planned, counts), source)
    run_id = secrets.token_hex(4)
    outcome = Outcome()
    while any(unit.name not in counts for unit in planned.units):
        forget_files(table, planned.replaced)
        take_out_ahead(table, planned.plans, {unit.name for unit in planned.units if unit.name not in counts})
        task = Task(
            table,
            planned.units,
            source,
            target.backbone,
            target.embedding_type,
            target.derive,
            target.finish({plan.name: plan.columns for plan in planned.plans}),
            {"run": run_id, "contract": contract.to_json()},
            reuse,
            _ledger(planned, counts),
            target.info.kind == "embeddings",
        )
        outcome = work(task, options, on_progress, outcome)
        if outcome.bound:
            logger.warning("Images of %d unit(s) are promised again, in new units.", len(outcome.bound))
        known = {unit.name for unit in planned.units}
        planned = replan(table, target.info.digest, planned, outcome.bound)  # other runs may have done so meanwhile
        counts = _count(table, planned)
        if {unit.name for unit in planned.units} <= known:
            break
    ledger = _ledger(planned, counts)
    record = {
        "status": "done",
        "run": run_id,
        "table": table.uri,
        "contract": contract.to_json(),
        "ledger": ledger.to_json(),
        **new_work(outcome),
        "rejects_by_code": count_codes(table, [n for n, c in counts.items() if c.rejects]) if ledger.rejected else {},
        "source": {
            "identity": source.identity,
            "listed": planned.num_listed,
            "new": planned.new,
            "changed": planned.changed,
            "removed": planned.removed,
            "pruned": planned.pruned,
            "repeated": planned.repeated,
            "again": planned.again,
            "skipped": dict(source.skipped),
            "seconds": round(planned.seconds, 3),
        },
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        "options": redacted(options.record()),
    }
    if not ledger.pending:
        forget_files(table, planned.replaced | taken_back)  # whoever has put them back meanwhile
        write_manifests(table, target.info, planned, record, outcome)
    waited_for = [unit for unit in planned.others if unit.name not in counts]
    return judge(record, outcome, options, replace(planned, others=waited_for))


def plan_all(options: RunOptions, source: Source, target: Target, opened_with: dict[str, Any]) -> Planned:
    """Plan every image of a source that the table doesn't hold yet.

    Args:
        options: How.
        source: Which images.
        target: Where they go.
        opened_with: What opens the source again, see `pipeline.sources.described`.

    Raises:
        ConfigError: The source has no images, or columns that don't fit the table.
    """
    columns = source.columns()

    def refs(unit_size: int) -> Iterator[pa.Table]:
        created = False
        for part in source.refs(unit_size):
            if len(part) and not created:  # a table comes into being once there is something to put in
                create_table(target.table, target.info, target.network)
                created = True
            yield part

    listing = Listing(
        source.identity,
        source.containers,
        refs,
        columns,
        target.info.digest,
        _unit_size(options),
        options.limit,
        opened_with,
    )
    planned = plan_source(target.table, listing, options.prune)
    if not planned.num_listed:
        raise ConfigError(f"Expected images in the source, found none{skipped_text(source)}. Check --source.")
    return planned


def _unit_size(options: RunOptions) -> int:
    if options.unit_size is not None:
        return options.unit_size
    alone = cluster.is_local()
    _, device = choose_engine(options.engine, options.device, alone and cuda_here())
    return usual_unit_size(device, alone)


def _open_reused(uri: str, options: WorkOptions, info: TableInfo) -> Table:
    """Open a table to copy embeddings from.

    Raises:
        ContractMismatch: It holds other features.
        TableError: It is no table of embeddings, or one of less precision.
    """
    table = open_table(uri, options.table_storage_options)
    stored = read_info(table)
    if stored.kind != "embeddings":
        raise TableError(f"Expected a table of embeddings at {table.uri} (--reuse), got one of {stored.kind}.")
    require_same_features(stored.contract, info.contract, f"Table {table.uri} (--reuse)", "Leave that --reuse out.")
    if stored.dtype != "float32" and info.dtype != stored.dtype:
        raise TableError(
            f"Expected float32 embeddings in {table.uri} (--reuse), got {stored.dtype}, which are less exact than "
            "those of this run would be. Leave that --reuse out."
        )
    return table


def _ledger(planned: Planned, counts: Mapping[str, Counts]) -> Ledger:
    return make_ledger([*planned.units, *planned.others], counts)


def _count(table: Table, planned: Planned) -> dict[str, Counts]:
    committed = committed_names(table)  # those of other sources may be by now
    return count_units(table, [unit for unit in [*planned.units, *planned.others] if unit.name in committed])
