"""What the machine can do, stage by stage, each alone: ``python -m benchmarks.rates FOLDER [--precision P]``."""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import cycle, repeat
from pathlib import Path

import numpy as np

from benchmarks.images import files
from pipeline import storage
from pipeline.backbones import load_backbone
from pipeline.backbones.microsoftvision import MICROSOFTVISION
from pipeline.engines import load_engine
from pipeline.engines.load import available_cores
from pipeline.images import Limits
from pipeline.preprocessing import decode_and_crop


def decode_rate(paths: list[Path], seconds: float) -> float:
    """Return images/s that all cores together read, decode, resize and crop, with one process a core."""
    cores = available_cores()
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(partial(_decode, seconds=0.2), [paths] * cores))  # starts and warms the processes
        return sum(pool.map(partial(_decode, seconds=seconds), [paths] * cores))


def _decode(paths: list[Path], seconds: float) -> float:
    started, count, endless = time.perf_counter(), 0, cycle(paths)
    while time.perf_counter() - started < seconds:
        decode_and_crop(MICROSOFTVISION, Limits(), next(endless).read_bytes())
        count += 1
    return count / (time.perf_counter() - started)


def model_rate(precision: str, seconds: float) -> tuple[float, str]:
    """Return images/s of the engine that `jobs.embed` uses here, and what it is."""
    backbone = load_backbone("microsoftvision-resnet50", "random:0")
    engine = load_engine(backbone, precision=precision, cache_dir=storage.default_cache_dir())  # type: ignore[arg-type]
    size, side = engine.info.batch_size, backbone.preprocessing.crop
    pixels = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), np.uint8)
    batches = engine.embed_batches(repeat(pixels))
    for _ in range(10):
        next(batches)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        count += len(next(batches))
    return count / (time.perf_counter() - started), f"{engine.info.engine} {engine.info.precision}"


def main() -> None:
    """Print the rates as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=float, default=4.0)
    asked = parser.parse_args()
    decode = decode_rate(list(files(asked.folder)), asked.seconds)
    model, engine = model_rate(asked.precision, asked.seconds)
    print(json.dumps({"decode": decode, "model": model, "engine": engine}))


if __name__ == "__main__":
    main()
