"""Classify a table's rows or a source's images: python -m jobs.predict --head DIR --source DIR --output DIR."""

from __future__ import annotations

import sys
from typing import Any

from jobs.cli import run_job
from jobs.text import ledger_line, random_weights_lines
from pipeline.predict import PredictOptions, predict


def summary(record: dict[str, Any]) -> str:
    """Return what a person wants to know of the run."""
    new = sum(record["new"].values())
    done = f"Classified {new} images in {record['seconds']:.1f} s." if new else "Nothing to do: all are classified."
    lines = [*random_weights_lines(record["contract"]), done, ledger_line(record["ledger"])]
    if record["threshold"] is not None:
        lines.append(
            f"Unknown: {record['unknown']} of {record['ledger']['embedded']}, with a probability below "
            f"{record['threshold']}."
        )
    return "\n".join([*lines, f"Predictions: {record['table']}/data/*.parquet"])


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("predict", PredictOptions, predict, summary, argv)


if __name__ == "__main__":
    sys.exit(main())
