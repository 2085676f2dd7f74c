"""Take up a table's rejects again: python -m jobs.retry --table DIR [--code CODE]."""

from __future__ import annotations

import sys
from typing import Any

from jobs.cli import run_job
from jobs.text import ledger_line, random_weights_lines
from pipeline.retry import RetryOptions, retry


def summary(record: dict[str, Any]) -> str:
    """Return what a person wants to know of it."""
    if not record["runs"]:
        return f"Nothing to do: no such rejects in {record['table']}, and nothing is pending."
    new = record["new"]
    done = f"Took up {record['again']} rejects: {new['embedded']} are embedded now, {new['rejected']} rejected again."
    return "\n".join(
        [*random_weights_lines(record["contract"]), done, ledger_line(record["ledger"]), f"Table: {record['table']}"]
    )


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("retry", RetryOptions, retry, summary, argv)


if __name__ == "__main__":
    sys.exit(main())
