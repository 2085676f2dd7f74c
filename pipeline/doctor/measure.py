"""Measure one stage after the other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import pyarrow as pa

from pipeline import storage
from pipeline.accounts import skipped_text
from pipeline.backbones import Backbone
from pipeline.doctor.model import Sweep, sweep
from pipeline.doctor.options import DoctorOptions
from pipeline.doctor.pace import side_by_side
from pipeline.doctor.reading import Decoded, Readers, merged
from pipeline.doctor.record import Measured
from pipeline.doctor.sample import Count, Listed, Seen, count_images, deal, list_for, share_of_folders, spread
from pipeline.doctor.writing import Written, embedding_rows, place_for, write_for
from pipeline.engines import Engine, load_engine
from pipeline.errors import ConfigError, TooManyRejects
from pipeline.images import Limits
from pipeline.layout import Layout
from pipeline.run_options import UNIT_SIZE
from pipeline.sources import Source
from pipeline.sources.detect import described
from pipeline.table import Table, data_schema

logger = logging.getLogger(__name__)

#: Refs of the sample: more than are read in the time, unless they come at once.
_SAMPLE_REFS = 8192


def measure(
    options: DoctorOptions, source: Source, table: Table | None, backbone: Backbone, layout: Layout, num_workers: int
) -> Measured:
    """Measure all stages, each alone.

    Args:
        options: What to measure.
        source: Where images come from.
        table: Where to write; None for a temporary folder.
        backbone: What to embed with.
        layout: How a run would share this machine.
        num_workers: Processes to read and decode in, at most.

    Raises:
        ConfigError: There is no image.
        TooManyRejects: All images of the sample are rejects.
        TransientError: An image can't be read now.
        OSError: The source can't be read, or the table can't be written.
    """
    logger.info("Listing the source, for %g s at most ...", options.seconds)
    listed = list_for(source, UNIT_SIZE, options.seconds)
    if not len(listed.refs):
        raise ConfigError(f"Expected images in the source, found none{skipped_text(source)}. Check --source.")
    shares = deal(spread(listed.refs, _SAMPLE_REFS), num_workers)
    logger.info("Measuring reading and decoding, in %d processes ...", len(shares))
    limits = Limits(options.max_image_pixels, options.max_image_bytes, options.allow_tiff)
    with Readers(len(shares)) as readers:
        read = readers.read(source, shares, limits, options.seconds)
        decoded = merged(readers.decode(backbone.preprocessing, limits, options.seconds))
    _require_images(decoded)
    count = _count(options, listed, [seen for one in read for seen in one.seen])
    logger.info("Measuring the model ...")
    model = _measure_model(options, backbone, layout)
    logger.info("Measuring writing, %s ...", f"at {table.uri}" if table else "in a temporary folder")
    schema = data_schema(options.dtype, backbone.contract.embedding_dim)
    written = _measure_writing(options, table, listed.refs, min(UNIT_SIZE, count.images), schema)
    reading = side_by_side([one.pace for one in read])
    return Measured(listed, count, reading, decoded, model, written)


def _require_images(decoded: Decoded) -> None:
    if not decoded.sizes:
        reason = f" (the first: {decoded.example[0]}: {decoded.example[1]})" if decoded.example else ""
        raise TooManyRejects(
            f"All {decoded.num_looked_at} images of a sample of the source are rejects{reason}, so there is nothing to "
            "measure. Check --source, and options such as --allow-tiff, --max-image-pixels and --image-column."
        )


def _count(options: DoctorOptions, listed: Listed, seen: Sequence[Seen]) -> Count:
    """Count the source's images."""
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


def _measure_model(options: DoctorOptions, backbone: Backbone, layout: Layout) -> Sweep:
    """Measure the engine as an actor of the layout would load it."""
    loaded = partial(
        load_engine,
        backbone,
        layout.engine,
        options.precision,
        device=layout.device,
        num_threads=layout.num_threads,
        cache_dir=options.cache_dir,
    )

    def load(batch_size: int | None) -> Engine:
        return loaded(batch_size=batch_size)

    return sweep(load, backbone.preprocessing.crop, options.batch_size, options.seconds)


def _measure_writing(
    options: DoctorOptions, table: Table | None, refs: pa.Table, num_rows: int, schema: pa.Schema
) -> Written:
    """Measure writing, of units of so many rows."""
    with place_for(table) as place:
        return write_for(place, embedding_rows(refs, num_rows, schema), options.seconds)
