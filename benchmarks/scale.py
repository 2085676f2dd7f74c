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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.nodes import NODE_GPUS, pretended_nodes, with_a_token
from benchmarks.stand_ins import Numbers, sleeping_backbone
from benchmarks.usage import KINDS, Usage
from pipeline.progress import Progress, ProgressCallback
from pipeline.run_options import RunOptions
from pipeline.runs import plan_all, run
from pipeline.table import Planned, TableInfo, open_table
from pipeline.targets import embedding_target

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


def simulate(
    point: Point, folder: Path, marks: dict[str, float], on_progress: ProgressCallback | None = None
) -> dict[str, Any]:
    """Run one point on the connected cluster, and return the run's record.

    Args:
        point: What to run.
        folder: Where ``table`` goes.
        marks: Takes the time when all is planned.
        on_progress: Called a few times a second.
    """
    batch_s = point.unit_s * point.batch / point.images
    backbone = sleeping_backbone(batch_s, folder / "together", point.actors, apart_s=point.unit_s)
    table = open_table(str(folder / "table"))
    target = embedding_target(table, TableInfo("embeddings", backbone.contract, "float32"), backbone)
    options = RunOptions(num_actors=point.actors, batch_size=point.batch, unit_size=point.images)
    source = Numbers(point.units * point.images)

    def plan() -> Planned:
        planned = plan_all(options, source, target, {"source": source.identity})
        marks["planned"] = time.time()
        return planned

    return run(options, source, target, plan, on_progress)


def measure(point: Point, folder: Path) -> dict[str, Any]:
    """Run one point, and return its figures.

    Steady is from the end of a third of the rounds, of at least one, to the beginning of the last round.
    """
    shutil.rmtree(folder, ignore_errors=True)
    marks = {"begin": time.time()}
    with Usage() as usage:
        try:
            simulate(point, folder, marks, _stopping(point))
        except KeyboardInterrupt:
            if point.stop_after is None:
                raise
        marks["end"] = time.time()
    commits = sorted(path.stat().st_mtime for path in (folder / "table" / "data").glob("*.parquet"))
    shutil.rmtree(folder)
    return asdict(point) | _figures(point, commits, usage, marks)


def _stopping(point: Point) -> ProgressCallback:
    def on_progress(progress: Progress) -> None:
        if point.stop_after is not None and progress.new >= point.stop_after * point.images:
            os.kill(os.getpid(), signal.SIGINT)  # what Ctrl-C does

    return on_progress


def _figures(point: Point, commits: list[float], usage: Usage, marks: dict[str, float]) -> dict[str, Any]:
    # Whole rounds, a unit of each actor: engines keep the distance in time at which they began.
    rounds = len(commits) // point.actors
    first, last = point.actors * max(1, rounds // 3) - 1, len(commits) - point.actors - 1
    begin, end = commits[first], commits[last]
    units, seconds = last - first, end - begin
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
        "cpu_ms_per_unit": {kind: 1000 * cpu[kind] / units for kind in KINDS},
        "driver_mb_per_1000_units": usage.grown(begin, end) / 1e6 / units * 1000,
        "plan_s": marks["planned"] - marks["begin"],
        "start_s": commits[0] - marks["planned"],
        "end_s": marks["end"] - commits[-1],
        "driver_cpu_s": driver,
        "processes": usage.most_processes,
    }


def show(figures: list[dict[str, Any]]) -> None:
    """Print the figures as a table."""
    print(
        "\nSIMULATION: engines that only sleep, images that are made when they are read, nodes that share this machine."
    )
    print("Processor time (ms a unit, s of 1,000) is of all processes of a kind; cores busy, of all of them.\n")
    print("| actors | unit (s) | planned | units/s | efficiency | cores busy | " + " | ".join(KINDS) + " | start (s) |")
    print("|---|" + "---|" * (6 + len(KINDS)))
    for one in figures:
        efficiency = "" if one["efficiency"] is None else f"{one['efficiency']:.3f}"
        cells = [one["actors"], f"{one['unit_s']:g}", f"{one['units']:,}", f"{one['units_per_s']:.1f}", efficiency]
        cells += [f"{one['cores_busy']:.0%}", *(f"{one['cpu_ms_per_unit'][kind]:.1f}" for kind in KINDS)]
        print("| " + " | ".join(map(str, [*cells, f"{one['start_s']:.0f}"])) + " |")


def main() -> None:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", default="1,2,4,8,16,32,64", help="sizes of the pool, by commas; may be empty")
    parser.add_argument("--unit-s", type=float, default=4.0, help="seconds that an engine takes for a unit")
    parser.add_argument("--units-per-actor", type=int, default=15)
    parser.add_argument("--queued", default="20000", help="units to plan at once, by commas; may be empty")
    parser.add_argument("--stop-after", type=int, default=500, help="units after which a run of those is interrupted")
    parser.add_argument("--output", type=Path, default=Path("out/bench"), help="where scale.json goes")
    asked = parser.parse_args()
    with_a_token("benchmarks.scale")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, a shell has it ignored
    points = [Point(n, asked.unit_s, n * asked.units_per_actor) for n in _numbers(asked.actors)]
    points += [Point(8, 0.0, n, images=1, stop_after=min(n, asked.stop_after)) for n in _numbers(asked.queued)]
    folder, figures = asked.output.absolute(), []
    folder.mkdir(parents=True, exist_ok=True)
    with pretended_nodes() as nodes:
        for point in points:
            nodes.grow_to(-(-point.actors // NODE_GPUS))
            print(f"{point} ...", flush=True)
            figures.append(measure(point, folder / "scale"))
            (folder / "scale.json").write_text(json.dumps({"simulation": True, "points": figures}, indent=1))
    show(figures)
    print(f"\n{asked.output / 'scale.json'} has more.")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


if __name__ == "__main__":
    main()
