"""What `make bench-scale` runs: a SIMULATION of many accelerators, to see what the framework itself costs.

Engines that only take time stand in for accelerators, and images that are made when they are read for a source; all
else is real: Ray on several nodes of this machine, plans, stages, commits, ledger and manifests, by `pipeline.runs`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.nodes import NODE_GPUS, pretended_nodes, with_a_token
from benchmarks.stand_ins import Numbers, sleeping_backbone
from benchmarks.usage import KINDS, Usage
from pipeline.progress import Progress
from pipeline.run_options import RunOptions
from pipeline.table import Planned, TableInfo, open_table

#: Batches of a unit.
_BATCHES = 4


@dataclass(frozen=True, slots=True)
class Point:
    """One run of the simulation.

    Args:
        actors: Embed actors, each with an engine.
        unit_s: Seconds that an engine takes for a unit.
        units: Units that are planned.
        images: Images of a unit.
        stop_after: Units after which the run is interrupted; None: it ends.
    """

    actors: int
    unit_s: float
    units: int
    images: int = 32
    stop_after: int | None = None

    @property
    def batch(self) -> int:
        """Images of a batch."""
        return max(1, self.images // _BATCHES)


def measure(point: Point, folder: Path) -> dict[str, Any]:
    """Run one point on the connected cluster, and return its figures.

    Steady is from the end of each actor's first unit to the beginning of its last.
    """
    from pipeline.runs import plan_all, run
    from pipeline.targets import embedding_target

    shutil.rmtree(folder, ignore_errors=True)
    backbone = sleeping_backbone(point.unit_s * point.batch / point.images, folder / "together", point.actors)
    table = open_table(str(folder / "table"))
    target = embedding_target(table, TableInfo("embeddings", backbone.contract, "float32"), backbone)
    options = RunOptions(num_actors=point.actors, batch_size=point.batch, unit_size=point.images)
    source = Numbers(point.units * point.images)
    marks = {"begin": time.time()}

    def plan() -> Planned:
        planned = plan_all(options, source, target, {"source": source.identity})
        marks["planned"] = time.time()
        return planned

    with Usage() as usage:
        try:
            run(options, source, target, plan, _stopping(point))
        except KeyboardInterrupt:
            if point.stop_after is None:
                raise
        marks["end"] = time.time()
    commits = sorted(path.stat().st_mtime for path in (folder / "table" / "data").glob("*.parquet"))
    shutil.rmtree(folder)
    return asdict(point) | _figures(point, commits, usage, marks)


def _stopping(point: Point) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        if point.stop_after is not None and progress.new >= point.stop_after * point.images:
            os.kill(os.getpid(), signal.SIGINT)  # what Ctrl-C does

    return on_progress


def _figures(point: Point, commits: list[float], usage: Usage, marks: dict[str, float]) -> dict[str, Any]:
    begin, end = commits[point.actors - 1], commits[-point.actors - 1]
    units, seconds = len(commits) - 2 * point.actors, end - begin
    rate = units / seconds
    cpu = usage.between(begin, end)
    driver = {
        "plan": usage.between(marks["begin"], marks["planned"])["driver"],
        "start": usage.between(marks["planned"], commits[0])["driver"],
        "end": usage.between(commits[-1], marks["end"])["driver"],
    }
    return {
        "committed": len(commits),
        "steady_units": units,
        "steady_s": seconds,
        "units_per_s": rate,
        "efficiency": rate * point.unit_s / point.actors if point.unit_s else None,
        "cores_busy": sum(cpu.values()) / seconds / (os.cpu_count() or 1),
        "cpu_s_per_1000_units": {kind: 1000 * cpu[kind] / units for kind in KINDS},
        "driver_mb_per_1000_units": usage.grown(begin, end) / 1e6 / units * 1000,
        "plan_s": marks["planned"] - marks["begin"],
        "start_s": commits[0] - marks["planned"],
        "end_s": marks["end"] - commits[-1],
        "driver_cpu_s": driver,
        "processes": usage.most_processes,
    }


def main() -> None:
    """Measure, print tables, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", default="1,2,4,8,16,32,64", help="sizes of the pool, by commas")
    parser.add_argument("--unit-s", type=float, default=2.0, help="seconds that an engine takes for a unit")
    parser.add_argument("--units-per-actor", type=int, default=12)
    parser.add_argument("--queued", default="", help="units that are planned at once, by commas")
    parser.add_argument("--stop-after", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    asked = parser.parse_args()
    with_a_token("benchmarks.scale")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, a shell has it ignored
    sizes = [int(size) for size in asked.actors.split(",") if size]
    queued = [int(size) for size in asked.queued.split(",") if size]
    points = [Point(n, asked.unit_s, n * asked.units_per_actor) for n in sizes]
    points += [Point(8, 0.0, n, 1, asked.stop_after) for n in queued]
    folder = asked.output.absolute() / "scale"
    figures = []
    with pretended_nodes() as nodes:
        for point in points:
            nodes.grow_to(-(-point.actors // NODE_GPUS))
            figures.append(measure(point, folder))
            print(json.dumps(figures[-1]), flush=True)
    (asked.output / "scale.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
