"""Measure a head on a split of a table: python -m jobs.evaluate --table DIR --head DIR."""

from __future__ import annotations

import sys
from typing import Any

from jobs.cli import run_job
from jobs.text import class_lines, metrics_line, random_weights_lines
from pipeline.heads import EvaluateOptions, evaluate


def summary(record: dict[str, Any]) -> str:
    """Return the metrics, whole and by class."""
    metrics = record["metrics"]
    return "\n".join(
        [*random_weights_lines(record["contract"]), metrics_line(record["split"], metrics), *class_lines(metrics)]
    )


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("evaluate", EvaluateOptions, lambda options, _: evaluate(options), summary, argv)


if __name__ == "__main__":
    sys.exit(main())
