"""Images/s of jobs.embed and of others: ``python -m benchmarks.embed``.

All embed the same JPEGs with the same network, one after the other, each as a program of its own. The ratios hold from
machine to machine; the rates don't.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.images import files, mean_bytes, multiplied, photographs
from benchmarks.plot import plot_rates
from benchmarks.programs import Run, commits, run

#: Images of a whole run, from the command to its exit; and of the peers that are only there for comparison.
_WHOLE, _PEERS = 1000, 250
#: Seconds that the long run of jobs.embed should take, by the rates measured before.
_LONG_S = 40
#: Few images suffice to calibrate with, and no limits hold, since the weights are random: int8 is as fast with any.
_INT8 = ("--precision", "int8", "--calibration-images", "32", "--min-int8-cosine", "-1")
_INT8 += ("--max-int8-accuracy-drop", "100")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table.

    Args:
        name: Who.
        whole: Images/s from the command to the exit.
        steady: Images/s after the first results; None where a peer doesn't tell.
        images: How many of them.
        run: The program.
    """

    name: str
    whole: float
    steady: float | None
    images: int
    run: Run


class Bench:
    """Runs the contestants.

    Args:
        folder: Where images and results lie.
        precision: Of jobs.embed and the bare loop.
    """

    def __init__(self, folder: Path, precision: str) -> None:
        self._folder, self._precision, self._work = folder, precision, folder / "work"
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)

    def contestant(self, name: str, module: str, images: Path, *arguments: str) -> Line:
        """Run one of `benchmarks.contestants`."""
        run_ = self._run(f"benchmarks.contestants.{module}", str(images), str(self._work / module), *arguments)
        count = sum(1 for _ in files(images))
        return Line(name, count / run_.seconds, run_.told.get("images_per_s"), count, run_)

    def embed(self, name: str, images: Path, cache_dir: Path, *more: str) -> tuple[Line, float]:
        """Run jobs.embed; return also the seconds from the command to the first committed unit."""
        table = self._work / f"table-{name.replace(' ', '-')}"
        options = ["--source", str(images), "--table", str(table), "--cache-dir", str(cache_dir)]
        options += more or ["--precision", self._precision]
        run_ = self._run("jobs.embed", *options, "--weights", "random:0", "--json")
        first, steady, count = commits(table, run_.started)
        shutil.rmtree(table)
        return Line(name, count / run_.seconds, steady, count, run_), first

    def rates(self, images: Path) -> dict[str, Any]:
        """Measure decoding and the model alone."""
        return self._run("benchmarks.rates", str(images), "--precision", self._precision).told

    def _run(self, module: str, *arguments: str) -> Run:
        print(f"{module} ...", flush=True)
        return run(module, *arguments, log=self._work / f"{module}.log")


def measure(folder: Path, images: Path | None, precision: str, peers: bool) -> dict[str, Any]:
    """Run everything and return the figures."""
    bench = Bench(folder, precision)
    images = images or photographs(_WHOLE, folder)
    few = _some(images, folder / "work" / "few")
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    before = bench.rates(images)
    lines = [bench.contestant("notebook loop", "notebook", images)]
    cold, cold_first = bench.embed("jobs.embed, first run ever", images, cache)
    whole, first = bench.embed("jobs.embed", images, cache)
    times = max(2, round(_LONG_S / (1 / before["model"] + 1 / before["decode"]) / whole.images))
    many = multiplied(images, times)
    lines += [cold, whole, bench.contestant("bare loop", "bare_loop", many, precision)]
    long, _ = bench.embed("jobs.embed, long", many, cache)
    lines.append(long)
    if importlib.util.find_spec("nncf"):
        int8, _ = bench.embed("jobs.embed, int8", images, cache, *_INT8)
        lines.append(int8)
    if peers:
        lines.append(bench.contestant("Ray Data's recipe", "ray_recipe", few))
        if importlib.util.find_spec("daft"):
            lines.append(bench.contestant("Daft UDF", "daft_udf", few))
    after = bench.rates(images)
    rates = {name: (before[name] + after[name]) / 2 for name in ("model", "decode")}
    return _figures(lines, rates, before["engine"], images) | {
        "first_commit_s": first,
        "first_commit_cold_s": cold_first,
    }


def _some(images: Path, target: Path) -> Path:
    chosen = list(files(images))[:: max(1, _WHOLE // _PEERS)][:_PEERS]
    for path in chosen:
        copy = target / path.relative_to(images)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return target


def _figures(lines: list[Line], rates: dict[str, float], engine: str, images: Path) -> dict[str, Any]:
    by_name = {line.name: line for line in lines}
    notebook, bare, long = by_name["notebook loop"], by_name["bare loop"], by_name["jobs.embed, long"]
    bound = 1 / (1 / rates["model"] + 1 / rates["decode"])
    steady, int8 = long.steady or long.whole, by_name.get("jobs.embed, int8")
    loop = notebook.steady or notebook.whole
    return {
        "machine": f"{os.cpu_count()} x {_processor()}",
        "engine": engine,
        "image_bytes": round(mean_bytes(images)),
        "model_images_per_s": rates["model"],
        "decode_images_per_s": rates["decode"],
        "bound_images_per_s": bound,
        "contestants": {
            line.name: {
                "images": line.images,
                "whole_images_per_s": line.whole,
                "steady_images_per_s": line.steady,
                "seconds": line.run.seconds,
                "cpu_s": line.run.cpu_s,
                "peak_bytes": line.run.peak_bytes,
            }
            for line in lines
        },
        "steady_over_notebook": steady / loop,
        "steady_over_bare_loop": steady / (bare.steady or bare.whole),
        "steady_over_bound": steady / bound,
        "whole_over_notebook": by_name["jobs.embed"].whole / notebook.whole,
        "int8_over_notebook": (int8.steady or int8.whole) / loop if int8 else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def show(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    print(f"\n{figures['machine']}, {figures['engine']}, JPEGs of {figures['image_bytes'] / 1000:.0f} kB\n")
    print(f"{'':30}{'images':>8}{'whole':>9}{'steady':>9}{'seconds':>9}{'cpu s':>8}{'memory':>9}")
    for name, one in figures["contestants"].items():
        steady = f"{one['steady_images_per_s']:9.1f}" if one["steady_images_per_s"] else f"{'':9}"
        print(
            f"{name:30}{one['images']:8}{one['whole_images_per_s']:9.1f}{steady}{one['seconds']:9.1f}"
            f"{one['cpu_s']:8.0f}{one['peak_bytes'] / 2**30:6.1f} GiB"
        )
    print(
        f"\nmodel alone {figures['model_images_per_s']:.1f}, decoding alone {figures['decode_images_per_s']:.1f}, ",
        end="",
    )
    print(f"bound 1 / (1/model + 1/decode) {figures['bound_images_per_s']:.1f} images/s\n")
    for key, text in (
        ("steady_over_notebook", "steady, over the notebook loop"),
        ("steady_over_bare_loop", "steady, over the bare loop"),
        ("steady_over_bound", "steady, over the bound"),
        ("whole_over_notebook", "whole run of 1,000, over the notebook loop"),
        ("int8_over_notebook", "steady in int8, over the notebook loop"),
    ):
        if figures[key] is not None:
            print(f"{text:45}{figures[key]:8.2f}")
    print(f"{'first committed unit after':45}{figures['first_commit_s']:8.1f} s")
    print(f"{'the same, with nothing cached':45}{figures['first_commit_cold_s']:8.1f} s")


def main() -> None:
    """Measure, print a table, and write JSON and a plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder of .jpg files (default: 1,000 are made)")
    parser.add_argument("--output", type=Path, default=Path("out/bench"), help="where results go (default: out/bench)")
    parser.add_argument("--precision", default="auto", help="of jobs.embed and the bare loop (default: auto)")
    parser.add_argument("--no-peers", action="store_true", help="without Ray Data's recipe and Daft")
    asked = parser.parse_args()
    figures = measure(asked.output.absolute(), asked.images, asked.precision, not asked.no_peers)
    show(figures)
    asked.output.joinpath("embed.json").write_text(json.dumps(figures, indent=1))
    plot_rates(figures, asked.output / "embed.png")
    print(f"\n{asked.output / 'embed.json'} and embed.png have the same.")


if __name__ == "__main__":
    main()
