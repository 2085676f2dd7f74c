"""Images/s on a CUDA device, of the network and from files to a table: ``python -m benchmarks.gpu``.

Each figure comes from a program of its own. jobs.embed runs on many copies of the same images, twice: with the CPUs
decoding, and with the GPU. Their embeddings are compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from benchmarks.images import files, mean_bytes, multiplied, photographs
from benchmarks.programs import commits, run
from pipeline.engines import cuda_here

#: Different images, and how often each comes: a run takes some ten seconds at 8,000 images/s.
_IMAGES, _TIMES = 2000, 40
_SAMPLE_EVERY_S = 0.5


@contextmanager
def _utilisation() -> Iterator[list[float]]:
    """Sample how much of the time the GPU is at work (0 to 1), by nvidia-smi, where there is that."""
    samples: list[float] = []
    program = shutil.which("nvidia-smi")
    if program is None:
        yield samples
        return
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    query = [program, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--id={device}"]
    ended = threading.Event()

    def collect() -> None:  # a program for each sample: one that loops may keep its output to itself
        while not ended.wait(_SAMPLE_EVERY_S):
            told = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
            samples.extend([float(told) / 100] if told.isdecimal() else [])

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def embed(images: Path, table: Path, cache_dir: Path, decode: str) -> dict[str, Any]:
    """Run jobs.embed once, and return its figures."""
    shutil.rmtree(table, ignore_errors=True)
    options = ["--source", str(images), "--table", str(table), "--cache-dir", str(cache_dir), "--device", "cuda"]
    print(f"jobs.embed --decode {decode} on {images.name} ...", flush=True)
    log = table.with_name(f"{table.name}.log")
    with _utilisation() as utilisation:
        run_ = run("jobs.embed", *options, "--weights", "random:0", "--decode", decode, "--json", log=log)
    committed = commits(table, run_.started)
    at_work = [one for one in utilisation if one > 0.05]  # before and after, the device is idle anyway
    return {
        "images": committed.images,
        "whole_images_per_s": committed.images / run_.seconds,
        "steady_images_per_s": committed.images_per_s,
        "first_commit_s": committed.first_s,
        "seconds": run_.seconds,
        "engine_busy": run_.told["engine_busy"],
        "gpu_utilisation": float(np.mean(at_work)) if at_work else None,
        "stage_s": run_.told["stage_s"],
        "engines": run_.told["engines"],
        "rejected": run_.told["ledger"]["rejected"],
        "cpu_s": run_.cpu_s,
        "peak_bytes": run_.peak_bytes,
    }


def parity(one: Path, other: Path) -> dict[str, float]:
    """Compare the embeddings of two tables of the same images, each less their mean.

    As they are, those of a network with random weights have a cosine of 0.999 for any two images.
    """
    tables = [ds.dataset(table / "data").to_table(["uri", "embedding"]).sort_by("uri") for table in (one, other)]
    if not tables[0]["uri"].equals(tables[1]["uri"]):
        raise SystemExit(f"{one} and {other} don't hold the same images.")
    first, second = (_vectors(table["embedding"]) for table in tables)
    mean = first.mean(axis=0)
    first, second = first - mean, second - mean
    cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    return {"worst_cosine": float(cosines.min()), "mean_cosine": float(cosines.mean())}


def _vectors(column: pa.ChunkedArray) -> Any:
    values = column.combine_chunks().flatten().to_numpy().astype(np.float64)
    return values.reshape(len(column), -1)


def measure(folder: Path, images: Path | None, times: int) -> dict[str, Any]:
    """Run everything and return the figures."""
    work, cache = folder / "gpu-work", folder / "gpu-cache"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    images = images or photographs(_IMAGES, folder)
    many = multiplied(images, times, folder)
    print("benchmarks.gpu_model ...", flush=True)
    figures = {
        "cpus": os.cpu_count(),
        "image_bytes": round(mean_bytes(images)),
        "images": sum(1 for _ in files(images)),
        "model": run("benchmarks.gpu_model", log=work / "gpu_model.log").told,
        "embed": {},
    }
    decoders = ["cpu", "gpu"] if importlib.util.find_spec("torchvision") else ["cpu"]
    for decode in decoders:  # the first run of a kind finds out the batch size, and isn't timed
        embed(images, work / f"few-{decode}", cache, decode)
        figures["embed"][decode] = embed(many, work / f"many-{decode}", cache, decode)
        shutil.rmtree(work / f"many-{decode}")
    if len(decoders) == 2:
        figures["parity"] = parity(work / "few-cpu", work / "few-gpu")
    return figures


def show(figures: dict[str, Any]) -> None:
    """Print the figures as tables."""
    model = figures["model"]
    print(f"\n{model['device']}, {figures['cpus']} cores, JPEGs of {figures['image_bytes'] / 1000:.0f} kB\n")
    sizes = list(next(iter(model["on_device_images_per_s"].values())))
    print(f"{'network alone, images/s':26}" + "".join(f"{'batch ' + size:>12}" for size in sizes) + f"{'+ copies':>12}")
    for precision, rates in model["on_device_images_per_s"].items():
        copies = model["with_copies_images_per_s"][precision]
        print(f"{precision:26}" + "".join(f"{rate:12.0f}" for rate in rates.values()) + f"{copies:12.0f}")
    print(f"{'autocast, batch by batch':26}{model['autocast_images_per_s']:12.0f}")
    if "compiled_images_per_s" in model:
        compiled = f"{model['compiled_images_per_s']:12.0f}   after {model['compiling_s']:.0f} s of compiling"
        print(f"{'torch.compile, fp16':26}{compiled}")
    elif "compile_error" in model:
        print(f"{'torch.compile, fp16':26}failed: {model['compile_error'].splitlines()[0]}")
    print(
        f"\n{'jobs.embed, decoding by':26}{'images':>10}{'whole':>9}{'steady':>9}{'engine busy':>13}{'nvidia-smi':>12}"
    )
    for decode, one in figures["embed"].items():
        steady, used = one["steady_images_per_s"], one["gpu_utilisation"]
        shown = f"{steady:9.0f}" if steady else f"{'':9}"
        print(
            f"{decode:26}{one['images']:10}{one['whole_images_per_s']:9.0f}{shown}{one['engine_busy'] or 0:13.2f}"
            + (f"{used:12.2f}" if used is not None else "")
        )
    if "parity" in figures:
        worst, mean = figures["parity"]["worst_cosine"], figures["parity"]["mean_cosine"]
        print(f"\ncosine of GPU-decoded to CPU-decoded embeddings, centred: worst {worst:.5f}, mean {mean:.5f}")


def main() -> None:
    """Measure, print tables, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help=f"a folder of .jpg files (default: {_IMAGES} are made)")
    parser.add_argument("--times", type=int, default=_TIMES, help=f"copies of each in a run (default: {_TIMES})")
    parser.add_argument("--output", type=Path, default=Path("out/bench"), help="where results go (default: out/bench)")
    asked = parser.parse_args()
    if not cuda_here():
        raise SystemExit("No CUDA device that PyTorch can use: there is nothing to measure here.")
    images = asked.images.absolute() if asked.images else None
    figures = measure(asked.output.absolute(), images, asked.times)
    show(figures)
    asked.output.joinpath("gpu.json").write_text(json.dumps(figures, indent=1))
    print(f"\n{asked.output / 'gpu.json'} has the same.")


if __name__ == "__main__":
    main()
