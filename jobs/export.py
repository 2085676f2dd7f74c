"""Write backbone and head as one program: python -m jobs.export --head DIR --output FILE."""

from __future__ import annotations

import sys
from typing import Any

from jobs.cli import run_job
from jobs.text import random_weights_lines
from pipeline.export import ExportOptions, export


def summary(record: dict[str, Any]) -> str:
    """Return what a person wants to know of the program."""
    verified = record["verified"]
    return "\n".join(
        [
            *random_weights_lines(record["contract"]),
            f"Exported a classifier of {len(record['classes'])} classes as {record['format']} "
            f"({record['bytes'] / 1e6:.1f} MB) in {record['seconds']:.1f} s.",
            f"Verified by {verified['executed_by']} on {verified['images']} images ({verified['source']}): "
            f"probabilities differ from the pipeline's by {verified['max_probability_difference']:.2g} at most, the "
            f"most probable class agrees on {verified['top1_agreement']:.2%}.",
            f"Program: {record['program']}",
            f"Description: {record['description']}",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("export", ExportOptions, lambda options, _: export(options), summary, argv)


if __name__ == "__main__":
    sys.exit(main())
