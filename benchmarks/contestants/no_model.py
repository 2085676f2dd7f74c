"""The pipeline with an engine that takes time at most, for what goes in and out of the Microsoft Vision ResNet-50."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from benchmarks.stand_ins import sleeping_backbone
from pipeline.backbones.microsoftvision import MICROSOFTVISION
from pipeline.run_options import RunOptions
from pipeline.runs import plan_all, run
from pipeline.sources import FolderSource
from pipeline.table import TableInfo, open_table
from pipeline.targets import embedding_target

_BATCH_SIZE = 64


def main(folder: str, output: str, num_images: str, seconds_per_image: str = "0", unit_size: str | None = None) -> None:
    """Bring the first images of a folder into a table, and print the ledger."""
    seconds = _BATCH_SIZE * float(seconds_per_image)
    backbone = sleeping_backbone(seconds, Path(output, "together"), 1, MICROSOFTVISION)
    table = open_table(str(Path(output, "table")))
    target = embedding_target(table, TableInfo("embeddings", backbone.contract, "float32"), backbone)
    options = RunOptions(batch_size=_BATCH_SIZE, limit=int(num_images), unit_size=int(unit_size) if unit_size else None)
    source = FolderSource(folder)
    record = run(options, source, target, partial(plan_all, options, source, target, {}), None)
    print(json.dumps(record["ledger"] | {"stage_s": record["stage_s"]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
