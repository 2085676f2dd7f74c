"""What an image costs besides decoding and the model: ``python -m benchmarks.overhead``.

Runs over tiny images with an engine that computes nothing. The processor time of all processes, less that of decoding
alone, is what listing, reading, hashing, moving and writing take. From a run of ten seconds to one of half a minute,
since by then all processes have started.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.images import files, multiplied, photographs
from benchmarks.programs import Run, run
from pipeline.backbones.microsoftvision import MICROSOFTVISION
from pipeline.images import Limits
from pipeline.preprocessing import decode_and_crop

#: Sides of the images (pixels), and how many there are in the two runs.
SIDES = (32, 100)
FEW, TIMES = 20_000, 3
MANY = TIMES * FEW


def decode_s(paths: list[Path]) -> float:
    """Return processor seconds that decoding, resizing and cropping take for each of some files, in memory."""
    contents = [path.read_bytes() for path in paths]
    decode_and_crop(MICROSOFTVISION, Limits(), contents[0])
    started = time.process_time()
    for content in contents:
        decode_and_crop(MICROSOFTVISION, Limits(), content)
    return (time.process_time() - started) / len(contents)


def measure(side: int, folder: Path) -> dict[str, Any]:
    """Return the figures of images of one size."""
    images = multiplied(photographs(FEW, folder, {(side, side): 1.0}), TIMES)
    few, many = (_run(images, folder / "work", count) for count in (FEW, MANY))
    each = (many.cpu_s - few.cpu_s) / (MANY - FEW)
    decoding = decode_s(list(files(images))[::30])
    return {
        "side": side,
        "core_ms": 1000 * each,
        "decode_ms": 1000 * decoding,
        "overhead_ms": 1000 * (each - decoding),
        "images_per_s": (MANY - FEW) / (many.seconds - few.seconds),
    }


def _run(images: Path, work: Path, count: int) -> Run:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    done = run("benchmarks.contestants.no_model", str(images), str(work), str(count), log=work / "log")
    if done.told["embedded"] != count:
        raise SystemExit(f"Expected {count} rows, got {done.told}.")
    return done


def main() -> None:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    asked = parser.parse_args()
    folder = asked.output.absolute()
    figures = [measure(side, folder) for side in SIDES]
    print(f"core milliseconds an image, from {FEW} to {MANY} images\n")
    print("".join(f"{name:>10}" for name in ("side", "all", "decoding", "the rest", "images/s")))
    for one in figures:
        print(
            f"{one['side']:10}{one['core_ms']:10.3f}{one['decode_ms']:10.3f}{one['overhead_ms']:10.3f}"
            f"{one['images_per_s']:10.0f}"
        )
    folder.joinpath("overhead.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
