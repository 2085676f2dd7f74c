"""What was measured, and what follows from it, as plain JSON values."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.doctor.advice import advice, command
from pipeline.doctor.estimate import (
    Node,
    Rates,
    actors_wanted,
    core_times,
    cores_wanted,
    estimate,
    expect,
    unit_size_for,
)
from pipeline.doctor.model import BatchPace, Sweep
from pipeline.doctor.options import DoctorOptions
from pipeline.doctor.pace import Pace
from pipeline.doctor.reading import Decoded
from pipeline.doctor.sample import Count, Listed
from pipeline.doctor.writing import WRITERS, Written
from pipeline.layout import usual_unit_size


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of each stage.

    Args:
        listed: What was listed.
        count: How many images the source has.
        reading: By all workers of the node together.
        decoded: By all workers, too.
        model: By one actor.
        written: By `pipeline.doctor.writing.WRITERS` at once.
    """

    listed: Listed
    count: Count
    reading: Pace
    decoded: Decoded
    model: Sweep
    written: Written

    def rates(self, node: Node, batch: BatchPace) -> Rates:
        """Return what a node can do by this, with batches of one of the sizes that were tried."""
        return Rates(
            self.reading.images_per_s,
            batch.images_per_s * node.actors,
            self.written.pace.images_per_s,
            self.reading.core_s,
            self.decoded.pace.core_s,
            self.written.pace.core_s,
        )


def make_record(options: DoctorOptions, node: Node, measured: Measured, containers: bool) -> dict[str, Any]:
    """Return what was measured, the bottleneck, what is recommended, and the estimate."""
    batch = measured.model.paces[0]
    if expect(measured.rates(node, batch), node).stage == "model":  # elsewhere another size gains nothing
        batch = measured.model.best
    rates = measured.rates(node, batch)
    expected = expect(rates, node)
    listed, count, decoded = measured.listed, measured.count, measured.decoded
    whole = count.images / max(1, count.listed)  # how often what was listed goes into the source
    usual = usual_unit_size("cuda" if node.on_gpu else "cpu", alone=options.nodes == 1)
    unit_size = unit_size_for(count.images, node.workers * options.nodes, usual)
    units = math.ceil(len(listed.refs) * whole) if containers else math.ceil(count.images / unit_size)
    actors = actors_wanted(rates, node) * options.nodes
    chosen = {
        "num_actors": None if actors == node.actors * options.nodes else actors,
        "batch_size": None if batch is measured.model.paces[0] else batch.batch_size,
        "unit_size": None if containers or unit_size == usual else unit_size,
    }
    sizing = estimate(
        count.images,
        expected.images_per_s,
        nodes=options.nodes,
        listing_s=listed.seconds * whole,
        reject_share=decoded.reject_share,
        row_bytes=measured.written.pace.image_bytes,
        units=units,
        price_per_hour=options.price_per_hour,
    )
    return {
        "machine": {**asdict(node), **asdict(measured.model.info)},
        "images": asdict(count),
        "sample": _sample(decoded),
        "rates": _rates(options, node, measured, rates),
        "bottleneck": {
            "stage": expected.stage,
            "why": expected.why,
            "advice": advice(expected, rates, node),
            "core_ms": {stage: round(1000 * seconds, 4) for stage, seconds in core_times(rates, node).items()},
        },
        "images_per_s": round(expected.images_per_s, 2),
        "recommended": {
            "num_actors": actors,
            "batch_size": batch.batch_size,
            "decode_workers": node.workers,
            "cores_for_devices": cores_wanted(rates) if node.on_gpu else None,
            "unit_size": None if containers else unit_size,
            "command": command(options, chosen),
        },
        "estimate": {"nodes": options.nodes, **asdict(sizing)},
        "left": measured.written.left,
    }


def _sample(decoded: Decoded) -> dict[str, Any]:
    widths, heights = zip(*decoded.sizes, strict=True)
    example = decoded.example
    return {
        "images": decoded.num_looked_at,
        "formats": dict(decoded.formats.most_common()),
        "median_size": [statistics.median_high(widths), statistics.median_high(heights)],
        "largest_size": list(max(decoded.sizes, key=math.prod)),
        "image_bytes": round(decoded.pace.image_bytes),
        "rejects": dict(decoded.rejects.most_common()),
        "reject_share": round(decoded.reject_share, 4),
        "first_reject": None if example is None else {"uri": example[0], "message": example[1]},
    }


def _rates(options: DoctorOptions, node: Node, measured: Measured, rates: Rates) -> dict[str, Any]:
    reading, decoding, writing = measured.reading, measured.decoded.pace, measured.written.pace
    return {
        "listing": {
            "refs_per_s": round(measured.listed.refs_per_s, 1),
            "refs": len(measured.listed.refs),
            "complete": measured.listed.complete,
        },
        "reading": {
            "images_per_s": round(reading.images_per_s, 2),
            "bytes_per_s": round(reading.images_per_s * reading.image_bytes),
            "processes": node.workers,
        },
        "decoding": {"images_per_s_per_core": round(1 / decoding.core_s, 2)},
        "model": {
            "images_per_s": round(rates.model, 2),
            "by_batch_size": {str(pace.batch_size): round(pace.images_per_s, 2) for pace in measured.model.paces},
        },
        "writing": {
            "images_per_s": round(writing.images_per_s, 1),
            "bytes_per_s": round(writing.images_per_s * writing.image_bytes),
            "row_bytes": round(writing.image_bytes),
            "at_once": WRITERS,
            "where": "a temporary folder" if options.table is None else "the table's storage",
        },
    }
