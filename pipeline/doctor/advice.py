"""What to do about a bottleneck, and the command that a run is to be started with."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline import storage
from pipeline.doctor.estimate import Expected, Node, Rates, cores_wanted
from pipeline.doctor.options import DoctorOptions
from pipeline.options import flags

#: Options that jobs.embed doesn't have.
_OWN = ("seconds", "num_images", "nodes", "price_per_hour")


def advice(expected: Expected, rates: Rates, node: Node) -> str:
    """Return what would make a run faster."""
    if expected.stage == "reading":
        return (
            "Run on nodes nearer to the source, or with a faster network; many small files are read faster out of tar "
            "shards or Parquet. For files, try --concurrent-reads."
        )
    if expected.stage == "writing":
        return "Put --table on faster storage, or nearer; --dtype float16 halves what is written."
    if node.on_gpu and expected.stage == "decoding":
        return f"About {cores_wanted(rates)} cores would keep the device busy; this node has {node.cores}."
    if expected.stage == "decoding":
        return "More cores or nodes; smaller images, if their full size isn't needed."
    return "More GPUs, or nodes that have them." if node.on_gpu else "A GPU, or more cores or nodes."


def command(options: DoctorOptions, chosen: Mapping[str, int | None]) -> str:
    """Return the command line of jobs.embed: options as they were given, and others as they were chosen.

    Args:
        options: What was given.
        chosen: Options that are recommended; those that are None are left to their defaults.
    """
    given = {name: value for name, value in options.record().items() if name in options.model_fields_set}
    named = {"source": storage.redact(options.source), "table": storage.redact(options.table or "TABLE")}
    values = {**named, **{name: given[name] for name in given if name not in (*named, *_OWN)}}
    values.update({name: value for name, value in chosen.items() if value is not None})
    words = [word for name, value in values.items() for word in _words(flags([name]), value)]
    return shlex.join(["python", "-m", "jobs.embed", *words])


def _words(flag: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield flag if value else flag.replace("--", "--no-", 1)
    elif isinstance(value, list):
        for item in value:
            yield from (flag, str(item))
    elif value is not None:
        yield from (flag, json.dumps(value) if isinstance(value, dict) else str(value))
