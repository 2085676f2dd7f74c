"""Whether a run's memory grows with the number of images: ``python -m benchmarks.memory``.

The peak of all processes of a run over few small images and of one over ten times as many, what they share counted
once: where decoding is the bottleneck; where an engine is, which takes a fixed time for an image and leaves the cores
alone; and, if asked for, with ResNet-50, which takes minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.images import photographs
from benchmarks.programs import Run, run

#: Side of the images (pixels): no smaller, or they would travel as they are, and not as crops. And how many there are
#: in the two runs.
_SIDE = 160
FEW, MANY = 2_000, 20_000
#: Of the engine that is the bottleneck: two cores decode and move some 2,000 images/s.
_SLOW_ENGINE_S = 0.004
_CASES = ("decoding", "engine", "resnet50")


def measure(case: str, images: Path, work: Path, unit_size: int | None) -> dict[str, Any]:
    """Return the peaks of a case."""
    few, many = (_run(case, images, work, count, unit_size) for count in (FEW, MANY))
    return {
        "case": case,
        "unit_size": unit_size,
        "peak_bytes": {FEW: few.peak_bytes, MANY: many.peak_bytes},
        "growth": many.peak_bytes / few.peak_bytes - 1,
        "images_per_s": (MANY - FEW) / (many.seconds - few.seconds),
        "core_ms": 1000 * (many.cpu_s - few.cpu_s) / (MANY - FEW),
    }


def _run(case: str, images: Path, work: Path, count: int, unit_size: int | None) -> Run:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    log = work / "log"
    size = [str(unit_size)] if unit_size else []
    if case == "resnet50":
        options = ["--source", str(images), "--table", str(work / "table"), "--limit", str(count)]
        options += ["--weights", "random:0", "--json", *(["--unit-size", *size] if size else [])]
        done = run("jobs.embed", *options, log=log)
        embedded = done.told["ledger"]["embedded"]
    else:
        seconds = str(_SLOW_ENGINE_S if case == "engine" else 0)
        done = run("benchmarks.contestants.no_model", str(images), str(work), str(count), seconds, *size, log=log)
        embedded = done.told["embedded"]
    if embedded != count:
        raise SystemExit(f"Expected {count} rows, got {embedded}.")
    return done


def main() -> None:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--case", action="append", choices=_CASES, help="which (default: all but resnet50)")
    parser.add_argument("--unit-size", type=int, help="images of a unit (default: the run's own)")
    asked = parser.parse_args()
    folder = asked.output.absolute()
    images = photographs(MANY, folder, {(_SIDE, _SIDE): 1.0})
    figures = []
    print(f"peak memory of all processes (MiB): {FEW} and {MANY} images\n")
    print("".join(f"{name:>12}" for name in ("bottleneck", "few", "many", "growth", "images/s", "core ms")), flush=True)
    for case in asked.case or _CASES[:-1]:
        one = measure(case, images, folder / "work", asked.unit_size)
        figures.append(one)
        few, many = (peak / 2**20 for peak in one["peak_bytes"].values())
        print(
            f"{case:>12}{few:12.0f}{many:12.0f}{one['growth']:12.1%}{one['images_per_s']:12.0f}{one['core_ms']:12.2f}",
            flush=True,
        )
    folder.joinpath("memory.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
