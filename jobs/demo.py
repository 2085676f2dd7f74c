"""The main job on images that come with scikit-learn: python -m jobs.demo."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.cli import run_job
from jobs.progress_line import ProgressLine
from jobs.text import metrics_line
from pipeline.bundled import write_digits
from pipeline.embed import EmbedOptions, embed
from pipeline.heads import TrainOptions, train
from pipeline.options import Options


class DemoOptions(Options):
    """Write scikit-learn's handwritten digits as an image folder, embed them, train a head and validate it."""

    output: str = Field("out/demo", description="Folder for the images, the table and the head.")
    verbose: bool = Field(False, description="Show Ray's own log, and the traceback of a failure.")


def demo(options: DemoOptions, progress: ProgressLine) -> dict[str, Any]:
    """Run the main job end to end and return the records of its steps."""
    started = time.perf_counter()
    output = Path(options.output)
    images, table, head = (str(output / name) for name in ("images", "table", "head"))
    write_digits(Path(images))
    # In float32, since what an untrained network tells apart is little, and bf16 would round some of it away.
    what = EmbedOptions(source=images, table=table, weights="random:0", precision="fp32", verbose=options.verbose)
    embedded = embed(what, progress)
    progress.close()
    trained = train(TrainOptions(table=table, head=head))
    return {
        "job": "demo",
        "status": "done",
        "images": images,
        "embed": embedded,
        "train": trained,
        "seconds": round(time.perf_counter() - started, 1),
    }


def summary(record: dict[str, Any]) -> str:
    """Return what the demo showed, and what to try next."""
    embedded, trained = record["embed"], record["train"]
    ledger = embedded["ledger"]
    rate = f" at {embedded['images_per_s']} images/s" if embedded["images_per_s"] else " (by an earlier run)"
    return f"""
Done in {record["seconds"]} s: {ledger["embedded"]} handwritten digits embedded{rate},
and a {trained["kind"]} head trained on them and validated on images it has never seen:
{metrics_line("test", trained["metrics"]["test"])}

The backbone's weights are RANDOM (random:0), for want of a download: even an untrained
convolutional network separates digits. Real photographs want the trained weights.

  images  {record["images"]}
  table   {embedded["table"]}   (Parquet: data/*.parquet)
  head    {trained["head"]}

Next, on your own images, in folders named by class (or train/CLASS, test/CLASS):

  .venv/bin/python -m jobs.embed --source PATH/TO/IMAGES --table out/mine
  .venv/bin/python -m jobs.train --table out/mine --head out/mine-head

The first of them fetches the trained weights (94 MB); without a network add --weights random:0."""


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("demo", DemoOptions, demo, summary, argv)


if __name__ == "__main__":
    sys.exit(main())
