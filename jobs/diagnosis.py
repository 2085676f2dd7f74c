"""What jobs.doctor has found, as lines for people."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from jobs.text import random_weights_lines
from pipeline.run_options import WorkOptions

#: Share of rejects that a run allows, unless it is told otherwise.
_MOST_REJECTS: float = WorkOptions.model_fields["max_reject_fraction"].default
#: How the number of images is known, in words.
_HOW = {
    "given": "as --num-images says",
    "listed": "listed",
    "extrapolated": "extrapolated from what was listed in the time",
    "least": "at least: the listing was stopped, give --num-images",
}


def diagnosis_text(record: dict[str, Any]) -> str:
    """Return what a person wants to know."""
    bottleneck, recommended = record["bottleneck"], record["recommended"]
    lines = [
        *random_weights_lines(record["contract"]),
        *_about(record),
        "",
        *_table(record),
        "",
        f"Bottleneck: {bottleneck['stage']}: {bottleneck['why']}. {bottleneck['advice']}",
        f"Expect at most {record['images_per_s']:,.1f} images/s on a node like this.",
        f"Recommended: {recommended['num_actors']} actor(s), batches of {recommended['batch_size']}, "
        f"{recommended['decode_workers']} decode workers a node (by Ray, from the node's cores)",
        f"  {recommended['command']}",
        _estimate(record),
    ]
    if record["left"]:
        lines += ["Written and not removable, remove them yourself:", *(f"  {uri}" for uri in record["left"])]
    return "\n".join(lines)


def _about(record: dict[str, Any]) -> list[str]:
    sample, machine, images = record["sample"], record["machine"], record["images"]
    formats = ", ".join(f"{count} {name}" for name, count in sample["formats"].items())
    rejects = ", ".join(f"{count} {code}" for code, count in sample["rejects"].items()) or "none"
    width, height = sample["median_size"]
    lines = [
        f"Source: {record['source']['identity']}: {images['images']:,} images ({_HOW[images['how']]})",
        f"Sample of {sample['images']}: {formats}; {width} x {height} pixels, {sample['image_bytes'] / 1000:.1f} kB; "
        f"rejects: {rejects} ({sample['reject_share']:.1%})",
    ]
    if sample["reject_share"] > _MOST_REJECTS:
        lines.append(f"A run would end with exit code 3: --max-reject-fraction allows {_MOST_REJECTS}, unless set.")
    if sample["first_reject"]:
        lines.append(f"  {sample['first_reject']['uri']}: {sample['first_reject']['message']}")
    return [*lines, f"Here: {machine['cores']} cores, {machine['device']}; {machine['engine']} {machine['precision']}"]


def _table(record: dict[str, Any]) -> list[str]:
    """Return a line for each stage: its rate, what it costs of a core, and how it was measured."""
    rates, core_ms = record["rates"], record["bottleneck"]["core_ms"]
    listing, reading, decoding, model, writing = (
        rates[name] for name in ("listing", "reading", "decoding", "model", "writing")
    )
    actors = record["machine"]["actors"]
    batches = ", ".join(f"{size}: {rate:,.1f}" for size, rate in model["by_batch_size"].items())
    rows: list[tuple[str, float, str]] = [
        ("listing", listing["refs_per_s"], f"{listing['refs']:,} refs{'' if listing['complete'] else ', stopped'}"),
        ("reading", reading["images_per_s"], f"{reading['processes']} processes, {_mb(reading)}"),
        ("decoding", decoding["images_per_s_per_core"], "a core"),
        ("model", model["images_per_s"], f"{actors} actor(s); one, by batch size: {batches}"),
        (
            "writing",
            writing["images_per_s"],
            f"{writing['at_once']} at once, {_mb(writing)}, {writing['row_bytes']:,} bytes a row, {writing['where']}",
        ),
    ]
    lines = [f"{'':9}{'images/s':>12}{'core ms':>10}"]
    for name, rate, how in rows:
        cost = f"{core_ms[name]:10.3f}" if name in core_ms else f"{'':10}"
        lines.append(f"{name:9}{rate:12,.1f}{cost}  {how}")
    return lines


def _mb(rate: dict[str, Any]) -> str:
    return f"{rate['bytes_per_s'] / 1e6:,.1f} MB/s"


def _estimate(record: dict[str, Any]) -> str:
    value = record["estimate"]
    cost = "" if value["cost"] is None else f", cost {value['cost']:,.2f}"
    return (
        f"Estimate for {record['images']['images']:,} images on {value['nodes']} node(s): "
        f"{tqdm.format_interval(value['seconds'])} after the start ({value['listing_s']:,.0f} s of it listing), "
        f"{value['node_hours']:,.2f} node-hours{cost}; a table of {value['table_bytes'] / 1e9:,.3f} GB in "
        f"{value['units']:,} units."
    )
