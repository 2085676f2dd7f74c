"""The doctor job: measure each stage on a sample, in bounded time, and say what a run will do."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from pipeline import storage
from pipeline.doctor.options import DoctorOptions

if TYPE_CHECKING:
    from pipeline.backbones import Backbone
    from pipeline.table import Table

logger = logging.getLogger(__name__)


def diagnose(options: DoctorOptions) -> dict[str, Any]:
    """Measure each stage on a sample of a source, each alone, and say what a run will do.

    Nothing stays anywhere, but in ``cache_dir`` what a run would keep there, too.

    Returns:
        The record, as plain JSON values: rates, bottleneck, recommendation, estimate.

    Raises:
        ConfigError: A run could not be done as asked.
        TooManyRejects: Every image of the sample is a reject, so there is nothing to measure.
        TransientError: The weights or the images can't be had now.
        OSError: The source can't be read, or the table can't be written.
    """
    # Ray, by whose rules cores are shared, takes a second to import: not before the options are known to be right, and
    # not in the processes that read.
    from pipeline.accounts import redacted
    from pipeline.backbones import load_backbone
    from pipeline.doctor.machine import this_node
    from pipeline.doctor.measure import measure
    from pipeline.doctor.record import make_record
    from pipeline.engines import require_here
    from pipeline.sources.detect import open_source

    started = time.perf_counter()
    source = open_source(options)
    source.columns()
    backbone = load_backbone(options.backbone, options.weights, options.preprocess, cache_dir=options.cache_dir)
    table = _open_table(options, backbone)
    require_here(options.engine, options.precision, options.device)
    if backbone.contract.random_weights:
        logger.warning("RANDOM WEIGHTS (%s): good for measuring, not for real work.", backbone.contract.weights)
    node, layout = this_node(options)
    measured = measure(options, source, table, backbone, layout, node.workers)
    return {
        "job": "doctor",
        "status": "done",
        "source": {
            "identity": storage.scrub(source.identity),
            "containers": source.containers,
            "skipped": dict(source.skipped),
        },
        "contract": backbone.contract.to_json(),
        **make_record(options, node, measured, source.containers),
        "seconds": round(time.perf_counter() - started, 3),
        "options": redacted(options.record()),
    }


def _open_table(options: DoctorOptions, backbone: Backbone) -> Table | None:
    """Return the table to write at, if one is named.

    Raises:
        ConfigError: A run could not write to it: it is a file, or a table of something else.
    """
    from pipeline.table import TableInfo, check_info, open_table

    if options.table is None:
        return None
    table = open_table(options.table, options.table_storage_options)
    storage.require_folder(table.uri, "--table")
    check_info(table, TableInfo("embeddings", backbone.contract, options.dtype))
    return table
