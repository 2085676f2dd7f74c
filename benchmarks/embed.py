"""Images/s of jobs.embed and of others: ``python -m benchmarks.embed``.

All embed the same JPEGs with the same network, one after the other, each as a program of its own. The ratios hold from
machine to machine; the rates don't. Slow contestants stop once they have told a steady rate; what they would take for
1,000 images is reckoned from it, and marked.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.contestants.clock import ENOUGH_S
from benchmarks.images import files, mean_bytes, multiplied, photographs
from benchmarks.plot import plot_rates
from benchmarks.programs import Run, busy_s, commits, run
from benchmarks.report import show

#: Images of a whole run, from the command to its exit.
_WHOLE = 1000
#: Seconds of steady work in the long run of jobs.embed, by the rates measured before.
_LONG_S = 25
#: Images of the run that finds nothing cached: its first unit, and some more.
_COLD = 128
#: Peers that can't stop by themselves get as many images as `ENOUGH_S` takes, by what they do of the notebook loop's
#: rate, and those of the first batch, which don't count.
_PEERS = {"ray_recipe": 0.65, "daft_udf": 1.0}
_PEERS_BATCH, _PEERS_LEAST, _PEERS_MOST = 40, 100, 200
#: Few images suffice to calibrate with, and no limits hold, since the weights are random: int8 is as fast with any.
_INT8 = ("--precision", "int8", "--calibration-images", "32", "--min-int8-cosine", "-1")
_INT8 += ("--max-int8-accuracy-drop", "100")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table.

    Args:
        name: Who.
        images: How many it embedded.
        steady_images: How many of them after the first results.
        steady: Images/s of these; None where there are none.
        run: The program.
        pace: Images/s by which the rest of 1,000 is reckoned; None for `steady`.
    """

    name: str
    images: int
    steady_images: int
    steady: float | None
    run: Run
    pace: float | None = None

    @property
    def reckoned(self) -> bool:
        """Whether `whole` is no measurement, but follows from fewer images than 1,000, and their steady rate."""
        return self.images < _WHOLE

    @property
    def whole(self) -> float:
        """Images/s from the command to the exit: of all images, or of 1,000 where there were fewer."""
        more = max(0, _WHOLE - self.images)
        pace = self.pace or self.steady
        if not pace:
            return self.images / self.run.seconds
        return (self.images + more) / (self.run.seconds + more / pace)


class Bench:
    """Runs the contestants.

    Args:
        folder: Where images and results lie.
        precision: Of jobs.embed and the bare loop.
    """

    def __init__(self, folder: Path, precision: str) -> None:
        self._precision, self._work = precision, folder / "work"
        self._started, self._busy_s, self._cpu_s = time.perf_counter(), busy_s() - time.process_time(), 0.0
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)

    def contestant(self, name: str, module: str, images: Path, *arguments: str) -> Line:
        """Run one of `benchmarks.contestants`."""
        run_ = self._run(f"benchmarks.contestants.{module}", str(images), str(self._work / module), *arguments)
        told = run_.told
        return Line(name, told["images"], told["steady_images"], told["images_per_s"], run_)

    def peer(self, name: str, module: str, images: Path, notebook: Line) -> Line:
        """Run one of them that embeds all that there is, on as few images as tell a rate."""
        expected = round(ENOUGH_S * _PEERS[module] * (notebook.steady or 0.0))
        enough = min(max(_PEERS_LEAST, expected), _PEERS_MOST)
        some = _some(images, self._work / f"for-{module}", _PEERS_BATCH + enough)
        return self.contestant(name, module, some)

    def embed(self, name: str, images: Path, cache_dir: Path, *more: str) -> tuple[Line, float]:
        """Run jobs.embed; return also the seconds from the command to the first committed unit."""
        table = self._work / f"table-{name.replace(' ', '-')}"
        options = ["--source", str(images), "--table", str(table), "--cache-dir", str(cache_dir)]
        options += [*more] if "--precision" in more else ["--precision", self._precision, *more]
        run_ = self._run("jobs.embed", *options, "--weights", "random:0", "--json")
        done = commits(table, run_.started)
        shutil.rmtree(table)
        return Line(name, done.images, done.steady_images, done.images_per_s, run_), done.first_s

    def rates(self, images: Path) -> dict[str, Any]:
        """Measure decoding and the model alone."""
        return self._run("benchmarks.rates", str(images), "--precision", self._precision).told

    def _run(self, module: str, *arguments: str) -> Run:
        print(f"{module} ...", flush=True)
        done = run(module, *arguments, log=self._work / f"{module}.log")
        self._cpu_s += done.cpu_s
        return done

    def others_cores(self) -> float:
        """Return how many cores other programs have kept busy."""
        busy = busy_s() - time.process_time() - self._busy_s - self._cpu_s
        return busy / (time.perf_counter() - self._started)


def measure(folder: Path, images: Path | None, precision: str, peers: bool) -> dict[str, Any]:
    """Run everything and return the figures."""
    images = images or photographs(_WHOLE, folder)
    bench = Bench(folder, precision)
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cold, cold_first = bench.embed("jobs.embed, nothing cached", images, cache, "--limit", str(_COLD))
    whole, first = bench.embed("jobs.embed", images, cache)
    cold = replace(cold, steady=None, steady_images=0, pace=whole.steady)  # it differs in its start only
    notebook = bench.contestant("notebook loop", "notebook", images)
    rates = bench.rates(images)  # and once more after the runs that they are compared with
    bare = bench.contestant("bare loop", "bare_loop", images, precision)
    num_long = max(whole.images, round(_LONG_S / (1 / rates["model"] + 1 / rates["decode"])))
    many = multiplied(images, -(-num_long // whole.images))
    long, _ = bench.embed("jobs.embed, long", many, cache, "--limit", str(num_long))
    after = bench.rates(images)
    rates |= {name: (rates[name] + after[name]) / 2 for name in ("model", "decode")}
    lines = [notebook, cold, whole, bare, long]
    if importlib.util.find_spec("nncf"):
        lines.append(bench.embed("jobs.embed, int8", images, cache, *_INT8)[0])
    if peers:
        lines.append(bench.peer("Ray Data's recipe", "ray_recipe", images, notebook))
        if importlib.util.find_spec("daft"):
            lines.append(bench.peer("Daft UDF", "daft_udf", images, notebook))
    more = {"first_commit_s": first, "first_commit_cold_s": cold_first, "others_cores": bench.others_cores()}
    return _figures(lines, rates, images) | more


def _some(images: Path, target: Path, num_images: int) -> Path:
    """Return a folder with some of a folder's images."""
    paths = list(files(images))
    for path in paths[:: max(1, len(paths) // num_images)][:num_images]:
        copy = target / path.relative_to(images)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return target


def _figures(lines: list[Line], rates: dict[str, Any], images: Path) -> dict[str, Any]:
    by_name = {line.name: line for line in lines}
    notebook, bare, long = by_name["notebook loop"], by_name["bare loop"], by_name["jobs.embed, long"]
    bound = 1 / (1 / rates["model"] + 1 / rates["decode"])
    steady, int8 = long.steady or long.whole, by_name.get("jobs.embed, int8")
    loop = notebook.steady or notebook.whole
    return {
        "machine": f"{os.cpu_count()} x {_processor()}",
        "engine": rates["engine"],
        "image_bytes": round(mean_bytes(images)),
        "model_images_per_s": rates["model"],
        "decode_images_per_s": rates["decode"],
        "bound_images_per_s": bound,
        "contestants": {
            line.name: {
                "images": line.images,
                "whole_images_per_s": line.whole,
                "whole_is_reckoned": line.reckoned,
                "steady_images": line.steady_images,
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


def main() -> None:
    """Measure, print a table, and write JSON and a plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder of .jpg files (default: 1,000 are made)")
    parser.add_argument("--output", type=Path, default=Path("out/bench"), help="where results go (default: out/bench)")
    parser.add_argument("--precision", default="auto", help="of jobs.embed and the bare loop (default: auto)")
    parser.add_argument("--no-peers", action="store_true", help="without Ray Data's recipe and Daft")
    asked = parser.parse_args()
    started = time.perf_counter()
    figures = measure(asked.output.absolute(), asked.images, asked.precision, not asked.no_peers)
    figures["seconds"] = time.perf_counter() - started
    show(figures)
    asked.output.joinpath("embed.json").write_text(json.dumps(figures, indent=1))
    plot_rates(figures, asked.output / "embed.png")
    print(f"\nTook {figures['seconds']:.0f} s. {asked.output / 'embed.json'} and embed.png have the same.")


if __name__ == "__main__":
    main()
