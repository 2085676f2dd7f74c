"""From the rates of the stages, each measured alone, to what a run will do: plain formulas.

With a CPU engine all stages share a node's cores, so the core time of an image adds up. The engine uses all cores, so
one image takes ``cores / model`` of core time, and

    cores bound = cores / (read + decode + write + cores / model)

With a GPU the engine has its own device, and the cores are left to reading and decoding:

    device bound = model        preparation bound = workers / (read + decode)

Reading and writing also wait for storage, while others work; so each is a bound of its own. A run is as fast as the
lowest of its bounds. What Ray itself takes is not in it: docs/tuning.md has predictions beside outcomes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.run_options import UNIT_SIZE

Stage = Literal["reading", "decoding", "model", "writing"]

#: Units that each decoding worker should get at least, so that all work to the end; and the smallest unit for that.
_UNITS_A_WORKER, _SMALLEST_UNIT = 4, 128


@dataclass(frozen=True, slots=True)
class Node:
    """A machine, and how a run's layout shares it.

    Args:
        cores: How many.
        on_gpu: Whether the engine has a device of its own.
        actors: Engines at once.
        workers: Read tasks at once, each with one image to decode at a time; no more than cores.
    """

    cores: int
    on_gpu: bool
    actors: int
    workers: int


@dataclass(frozen=True, slots=True)
class Rates:
    """What one node can do.

    Args:
        reading: By all workers together (images/s).
        model: By all actors together (images/s).
        writing: By one node (images/s).
        read_s: Core time of an image's reading (seconds).
        decode_s: Of its decoding.
        write_s: Of its row.
    """

    reading: float
    model: float
    writing: float
    read_s: float
    decode_s: float
    write_s: float


@dataclass(frozen=True, slots=True)
class Expected:
    """What a node will do.

    Args:
        images_per_s: At most.
        stage: What limits it.
        why: In words.
    """

    images_per_s: float
    stage: Stage
    why: str


def core_times(rates: Rates, node: Node) -> dict[Stage, float]:
    """Return the core time that an image takes in each stage (seconds); of the model's, on a GPU, none."""
    model = 0.0 if node.on_gpu else node.cores / rates.model
    return {"reading": rates.read_s, "decoding": rates.decode_s, "model": model, "writing": rates.write_s}


def expect(rates: Rates, node: Node) -> Expected:
    """Return how fast a run on this node will be, and what limits it."""
    times = core_times(rates, node)
    core_s = sum(times.values())
    most = max(times, key=lambda stage: times[stage])
    busy = f"it takes {times[most] / core_s:.0%} of the {1000 * core_s:.3g} ms of core time that an image costs"
    preparation = node.workers / (rates.read_s + rates.decode_s)
    decodes: Stage = "decoding" if rates.decode_s >= rates.read_s else "reading"
    bounds: list[Expected] = [
        Expected(rates.reading, "reading", f"the source gives no more to {node.workers} processes"),
        Expected(rates.writing, "writing", "the table's storage takes no more"),
        Expected(preparation, decodes, f"{node.workers} workers on {node.cores} cores can prepare no more"),
        Expected(rates.model, "model", "the device can do no more")
        if node.on_gpu
        else Expected(node.cores / core_s, most, busy),
    ]
    return min(bounds, key=lambda bound: bound.images_per_s)


def cores_wanted(rates: Rates) -> int:
    """Return how many cores would prepare as many images as the devices embed."""
    return math.ceil(rates.model * (rates.read_s + rates.decode_s))


def actors_wanted(rates: Rates, node: Node) -> int:
    """Return how many of a node's actors have enough to do; on CPUs, all."""
    if not node.on_gpu:
        return node.actors
    prepared = min(rates.reading, node.workers / (rates.read_s + rates.decode_s))
    return min(node.actors, max(1, math.ceil(prepared * node.actors / rates.model)))


def unit_size_for(num_images: int, num_workers: int, usual: int = UNIT_SIZE) -> int:
    """Return how many images a unit should have, so that even of a small source every worker gets several units.

    Args:
        num_images: Of the source.
        num_workers: Read tasks at once, on all nodes.
        usual: What it has where there are enough.
    """
    size = usual
    while size > _SMALLEST_UNIT and size * num_workers * _UNITS_A_WORKER > num_images:
        size //= 2
    return size


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a whole source takes, from the first unit to the last.

    Args:
        seconds: In time, listing included.
        listing_s: Of that, before the first image is read.
        node_hours: Of all nodes together.
        cost: In the currency of the price; None where there is no price.
        rows: Images that are no rejects.
        table_bytes: Length of the table's data files.
        units: How many.
    """

    seconds: float
    listing_s: float
    node_hours: float
    cost: float | None
    rows: int
    table_bytes: int
    units: int


def estimate(
    num_images: int,
    images_per_s: float,
    *,
    nodes: int,
    listing_s: float,
    reject_share: float,
    row_bytes: float,
    units: int,
    price_per_hour: float | None,
) -> Estimate:
    """Return what a whole source takes.

    Args:
        num_images: Of the source.
        images_per_s: On one node; nodes share nothing but the storage, so their rates add up.
        nodes: How many.
        listing_s: To list it (seconds), which one process does.
        reject_share: Of the images (0 to 1).
        row_bytes: Of a row in a data file.
        units: How many.
        price_per_hour: Of a node.
    """
    seconds = listing_s + num_images / (images_per_s * nodes)
    hours, rows = nodes * seconds / 3600, round(num_images * (1 - reject_share))
    cost = None if price_per_hour is None else hours * price_per_hour
    return Estimate(seconds, listing_s, hours, cost, rows, round(rows * row_bytes), units)
