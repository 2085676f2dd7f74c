"""Embed every image of a source into a table: python -m jobs.embed --source DIR --table DIR."""

from __future__ import annotations

import sys
from typing import Any

from jobs.cli import run_job
from pipeline.runs import EmbedOptions, embed


def summary(record: dict[str, Any]) -> str:
    """Return what a person wants to know of the run."""
    ledger, new = record["ledger"], record["new"]
    lines = []
    if record["contract"]["weights"].startswith("random:"):
        lines.append(f"Weights are RANDOM ({record['contract']['weights']}): features of an untrained network.")
    if new["embedded"] + new["rejected"]:
        lines.append(
            f"Embedded {new['embedded']} images, rejected {new['rejected']}, at {record['images_per_s']} images/s "
            f"({'; '.join(record['engines'])})."
        )
    else:
        lines.append("Nothing to do: every image of the source is in the table.")
    lines.append(f"Ledger: {ledger['planned']} planned = {ledger['embedded']} embedded + {ledger['rejected']} rejected.")
    lines.append(f"Table: {record['table']}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("embed", EmbedOptions, embed, summary, argv)


if __name__ == "__main__":
    sys.exit(main())
