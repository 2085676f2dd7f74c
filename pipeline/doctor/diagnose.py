"""The doctor job: measure each stage on a sample, in bounded time, and say what a run will do."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import storage
from pipeline.doctor.options import DoctorOptions
from pipeline.errors import ConfigError, TooManyRejects
from pipeline.images import Limits
from pipeline.run_options import UNIT_SIZE

if TYPE_CHECKING:
    from pipeline.backbones import Backbone
    from pipeline.doctor.pace import Pace
    from pipeline.doctor.reading import Decoded
    from pipeline.doctor.sample import Count, Listed, Seen
    from pipeline.sources import Source
    from pipeline.table import Table

logger = logging.getLogger(__name__)

#: Refs of the sample: more than are read in the time, unless they come at once.
_SAMPLE_REFS = 8192


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
    # Ray, whose layout is asked here, and the engines take a second to import: not before the options are right.
    from pipeline.sources import open_source

    started = time.perf_counter()
    source = open_source(options)
    source.columns()
    from pipeline.accounts import redacted
    from pipeline.backbones import load_backbone
    from pipeline.doctor.machine import this_node
    from pipeline.doctor.model import sweep
    from pipeline.doctor.record import Measured, make_record
    from pipeline.engines import load_engine, require_here

    backbone = load_backbone(options.backbone, options.weights, options.preprocess, cache_dir=options.cache_dir)
    table = _open_table(options, backbone)
    require_here(options.engine, options.precision, options.device)
    if backbone.contract.random_weights:
        logger.warning("RANDOM WEIGHTS (%s): good for measuring, not for real work.", backbone.contract.weights)
    node, layout = this_node(options)
    listed, count, reading, decoded = _measure_source(options, source, backbone, node.workers)
    logger.info("Measuring the model ...")
    load = partial(
        load_engine,
        backbone,
        layout.engine,
        options.precision,
        device=layout.device,
        num_threads=layout.num_threads,
        cache_dir=options.cache_dir,
    )
    model = sweep(
        lambda batch_size: load(batch_size=batch_size),
        backbone.preprocessing.crop,
        options.batch_size,
        options.seconds,
    )
    writing, left = _measure_writing(options, table, listed, min(UNIT_SIZE, count.images), backbone)
    measured = Measured(listed, count, reading, decoded, model, writing)
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
        "left": left,
        "seconds": round(time.perf_counter() - started, 3),
        "options": redacted(options.record()),
    }


def _open_table(options: DoctorOptions, backbone: Backbone) -> Table | None:
    """Return the table to write at, if one is named that a run could write to."""
    from pipeline.table import TableInfo, check_info, open_table

    if options.table is None:
        return None
    table = open_table(options.table, options.table_storage_options)
    storage.require_folder(table.uri, "--table")
    check_info(table, TableInfo("embeddings", backbone.contract, options.dtype))
    return table


def _measure_source(
    options: DoctorOptions, source: Source, backbone: Backbone, num_workers: int
) -> tuple[Listed, Count, Pace, Decoded]:
    """Measure listing, reading and decoding.

    Raises:
        ConfigError: There is no image.
        TooManyRejects: There are rejects only.
    """
    from pipeline.accounts import skipped_text
    from pipeline.doctor.pace import side_by_side
    from pipeline.doctor.reading import Readers, merged
    from pipeline.doctor.sample import deal, list_for, spread

    logger.info("Listing the source, for %g s at most ...", options.seconds)
    listed = list_for(source, UNIT_SIZE, options.seconds)
    if not len(listed.refs):
        raise ConfigError(f"Expected images in the source, found none{skipped_text(source)}. Check --source.")
    shares = deal(spread(listed.refs, _SAMPLE_REFS), num_workers)
    limits = Limits(options.max_image_pixels, options.max_image_bytes, options.allow_tiff)
    with Readers(len(shares)) as readers:
        logger.info("Measuring reading and decoding, in %d processes ...", len(shares))
        read = readers.read(source, shares, limits, options.seconds)
        decoded = merged(readers.decode(backbone.preprocessing, limits, options.seconds))
    if not decoded.sizes:
        reason = f" (the first: {decoded.example[0]}: {decoded.example[1]})" if decoded.example else ""
        raise TooManyRejects(
            f"All {decoded.num_looked_at} images of a sample of the source are rejects{reason}, so there is nothing to "
            "measure. Check --source, and options such as --allow-tiff, --max-image-pixels and --image-column."
        )
    count = _count(options, listed, [seen for one in read for seen in one.seen])
    return listed, count, side_by_side([one.pace for one in read]), decoded


def _count(options: DoctorOptions, listed: Listed, seen: list[Seen]) -> Count:
    """Count the source's images."""
    from pipeline.doctor.sample import Count, count_images, share_of_folders
    from pipeline.sources import described

    place = described(options)
    store = storage.store_for(place["source"], options.storage_options)

    def size_of(uri: str) -> int | None:
        info = store.info(uri)
        return None if info is None else info.size

    def share() -> float | None:
        if place["format"] != "folder":
            return None
        return share_of_folders(store, place["source"], listed.refs["uri"][-1].as_py())

    count = count_images(listed, seen, size_of, share)
    return count if options.num_images is None else Count(options.num_images, count.listed, "given")


def _measure_writing(
    options: DoctorOptions, table: Table | None, listed: Listed, num_rows: int, backbone: Backbone
) -> tuple[Pace, dict[str, str]]:
    """Measure writing, and return also what could not be removed again."""
    from pipeline.doctor.writing import embedding_rows, place_for, write_for
    from pipeline.table import data_schema

    with place_for(table) as place:
        logger.info("Measuring writing, at %s ...", place.uri if table else "a temporary folder")
        rows = embedding_rows(listed.refs, num_rows, data_schema(options.dtype, backbone.contract.embedding_dim))
        written = write_for(place, rows, options.seconds)
    return written.pace, written.left
