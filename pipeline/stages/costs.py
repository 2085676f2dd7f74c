"""What a unit costs in each stage: for the run's record, and to find out which stage is slow."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Costs:
    """What was spent on one unit.

    Args:
        read_s: Seconds from the first look at the plan to the unit's block, decoding included.
        decode_s: Seconds of them that went into decoding, resizing and cropping.
        bytes_read: Length of the images' files.
        read_peak_bytes: Most memory that the process that read it has ever had (resident).
        embed_s: Seconds in the actor.
        engine_s: Seconds of them in the engine; those in which other units were there, too, count for one of them.
        embed_began: When it came to the actor (seconds since the epoch).
        embed_peak_bytes: As ``read_peak_bytes``, of the actor.
        actor: Which actor it was.
        commit_s: Seconds from its vectors to the end of the commit.
        bytes_written: Length of its files.
        commit_peak_bytes: As ``read_peak_bytes``, of the process that committed it.
    """

    read_s: float = 0.0
    decode_s: float = 0.0
    bytes_read: int = 0
    read_peak_bytes: int = 0
    embed_s: float = 0.0
    engine_s: float = 0.0
    embed_began: float = 0.0
    embed_peak_bytes: int = 0
    actor: str = ""
    commit_s: float = 0.0
    bytes_written: int = 0
    commit_peak_bytes: int = 0


NO_COSTS = Costs()
_ARROW = {"float": pa.float64(), "int": pa.int64(), "str": pa.string()}
#: The type of the column ``costs``.
COSTS_TYPE = pa.struct([(field.name, _ARROW[str(field.type)]) for field in fields(Costs)])


def costs_of(block: pa.Table) -> Costs:
    """Return what a block says of its unit."""
    return Costs(**block["costs"][0].as_py())


def with_costs(block: pa.Table, costs: Costs) -> pa.Table:
    """Return a block that says so of its unit."""
    values = pa.repeat(pa.scalar(asdict(costs), COSTS_TYPE), len(block))
    if "costs" not in block.column_names:
        return block.append_column("costs", values)
    return block.set_column(block.column_names.index("costs"), "costs", values)


def peak_bytes() -> int:
    """Return the most memory that this process has ever had (resident), where the system tells; else 0."""
    if sys.platform == "linux":  # getrusage's figure begins with that of the parent
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def summed(all_costs: Iterable[Costs]) -> dict[str, Any]:
    """Add up the costs of units.

    Returns:
        ``stage_s``: seconds in each stage, over all its processes. ``bytes_read`` and ``bytes_written``.
        ``peak_memory_bytes``: of the largest process of each stage. ``engine_busy``: the share of the time from each
        actor's first unit to its last that it has spent in the engine, 0 to 1; None where nothing was embedded.
    """
    costs = list(all_costs)
    spans: dict[str, tuple[float, float]] = {}
    for one in costs:
        if one.actor:
            begin, end = spans.get(one.actor, (one.embed_began, one.embed_began))
            spans[one.actor] = min(begin, one.embed_began), max(end, one.embed_began + one.embed_s)
    present = sum(end - begin for begin, end in spans.values())
    stages = ("read", "decode", "embed", "engine", "commit")
    return {
        "stage_s": {name: round(sum(getattr(one, f"{name}_s") for one in costs), 3) for name in stages},
        "engine_busy": round(sum(one.engine_s for one in costs) / present, 3) if present else None,
        "bytes_read": sum(one.bytes_read for one in costs),
        "bytes_written": sum(one.bytes_written for one in costs),
        "peak_memory_bytes": {
            name: max((getattr(one, f"{name}_peak_bytes") for one in costs), default=0)
            for name in ("read", "embed", "commit")
        },
    }
