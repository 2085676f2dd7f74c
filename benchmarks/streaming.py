"""Heads on a table that doesn't fit into the memory they may have: ``python -m benchmarks.streaming``.

A million rows of 2,048 float16 features are made and written as a table (4.1 GB, kept for the next time), and each kind
of head that learns in passes is trained on it by ``jobs.train`` with 2 GiB for features; time and peak memory are
measured from outside.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from benchmarks.programs import run
from benchmarks.stored import write_table

_OPTIONS = {"ridge": [], "logistic": [], "mlp": ["--epochs", "3"]}


def main() -> None:
    """Make the table, train, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--memory-gb", type=float, default=2.0)
    parser.add_argument("--kind", action="append", choices=sorted(_OPTIONS), help="which (default: all)")
    asked = parser.parse_args()
    folder = asked.output.absolute() / f"stored-{asked.rows}"
    if not (folder / "done").exists():
        started = time.perf_counter()
        write_table(folder, asked.rows)
        (folder / "done").touch()
        print(f"made {asked.rows} rows in {time.perf_counter() - started:.0f} s", flush=True)
    print("".join(f"{name:>12}" for name in ("kind", "seconds", "cpu s", "peak MiB", "passes", "validation", "test")))
    figures = []
    for kind in asked.kind or _OPTIONS:
        options = ["--table", str(folder), "--head", str(asked.output.absolute() / f"head-{kind}"), "--kind", kind]
        options += ["--memory-gb", str(asked.memory_gb), "--json", *_OPTIONS[kind]]
        done = run("jobs.train", *options, log=asked.output.absolute() / f"streaming-{kind}.log")
        metrics, config = done.told["metrics"], done.told["config"]
        if not config["streamed"]:
            raise SystemExit(f"{kind} had the features in memory: more --rows, or less --memory-gb.")
        one = {
            "kind": kind,
            "seconds": done.seconds,
            "cpu_s": done.cpu_s,
            "peak_bytes": done.peak_bytes,
            "passes": config.get("passes", config.get("epochs", 1)),
            "validation_top1": metrics["validation"]["top1"],
            "test_top1": metrics["test"]["top1"],
        }
        figures.append(one)
        print(
            f"{kind:>12}{one['seconds']:12.0f}{one['cpu_s']:12.0f}{one['peak_bytes'] / 2**20:12.0f}"
            f"{one['passes']:12}{one['validation_top1']:12.4f}{one['test_top1']:12.4f}",
            flush=True,
        )
    (asked.output / "streaming.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
