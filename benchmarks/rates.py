"""What the machine can do, stage by stage, each alone: ``python -m benchmarks.rates FOLDER [--precision P]``."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import cycle
from pathlib import Path

from benchmarks.images import files
from pipeline import storage
from pipeline.backbones import load_backbone
from pipeline.backbones.microsoftvision import MICROSOFTVISION
from pipeline.doctor.model import embed_for
from pipeline.doctor.reading import decode_for
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
    images = (path.read_bytes() for path in cycle(paths))
    return decode_for(images, partial(decode_and_crop, MICROSOFTVISION, Limits()), seconds).images_per_s


def model_rate(precision: str, seconds: float) -> tuple[float, str]:
    """Return images/s of the engine that `jobs.embed` uses here, and what it is."""
    backbone = load_backbone("microsoftvision-resnet50", "random:0")
    engine = load_engine(backbone, precision=precision, cache_dir=storage.default_cache_dir())  # type: ignore[arg-type]
    rate = embed_for(engine, backbone.preprocessing.crop, seconds).images_per_s
    return rate, f"{engine.info.engine} {engine.info.precision}"


def main() -> None:
    """Print the rates as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=float, default=3.0)
    asked = parser.parse_args()
    decode = decode_rate(list(files(asked.folder)), asked.seconds)
    model, engine = model_rate(asked.precision, asked.seconds)
    print(json.dumps({"decode": decode, "model": model, "engine": engine}))


if __name__ == "__main__":
    main()
