"""Compare backbones on datasets by linear probes: python -m jobs.probe --suite demo --output DIR."""

from __future__ import annotations

import sys
from typing import Any

from jobs.cli import run_job
from jobs.progress_line import ProgressLine
from pipeline.errors import RunIncomplete
from pipeline.probe import ProbeOptions, probe
from pipeline.probe.report import comparison


def work(options: ProbeOptions, progress: ProgressLine) -> dict[str, Any]:
    """Run the suite.

    Raises:
        RunIncomplete: Something could not be run; the report tells what could.
    """
    record = probe(options, progress, progress.close)
    if record["num_not_run"]:
        raise RunIncomplete(
            f"{record['num_not_run']} of {len(record['cells'])} results are not there. The reasons are above and in "
            f"the report. Run the same command again once they are gone: it does only what is missing.\n\n"
            f"{summary(record)}",
            record,
        )
    return record


def summary(record: dict[str, Any]) -> str:
    """Return the comparison, what in it isn't as expected, and where the report is."""
    embedded = sum(cell.get("num_embedded_now", 0) for cell in record["cells"])
    lines = [comparison(record), ""]
    for cell in record["cells"]:
        lines += [f"Note: {cell['dataset']}, {cell['backbone']}: {note}." for note in cell["notes"]]
    if any(backbone["weights"].startswith("random:") for backbone in record["backbones"]):
        lines.append("Weights are RANDOM where the column says so: these are features of an untrained network.")
    lines.append(f"Embedded {embedded} images in this run; {record['seconds']} s.")
    return "\n".join([*lines, f"Report: {record['report']['md']} (and .parquet, .json{_plot(record)})"])


def _plot(record: dict[str, Any]) -> str:
    return ", .png" if record["report"]["png"] else ""


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("probe", ProbeOptions, work, summary, argv)


if __name__ == "__main__":
    sys.exit(main())
