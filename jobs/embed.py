"""Embed every image of a source into a table: python -m jobs.embed --source DIR --table DIR."""

from __future__ import annotations

import sys
from typing import Any

from jobs.cli import run_job
from jobs.text import ledger_line, random_weights_lines
from pipeline.embed import EmbedOptions, embed


def summary(record: dict[str, Any]) -> str:
    """Return what a person wants to know of the run."""
    new = record["new"]
    if new["embedded"] + new["rejected"]:
        engines = f" ({'; '.join(record['engines'])})" if record["engines"] else ""
        reused = (
            f" ({new['reused']} of them copied, since the same bytes were embedded before)" if new["reused"] else ""
        )
        done = (
            f"Embedded {new['embedded']} images{reused}, rejected {new['rejected']}, "
            f"at {record['images_per_s']} images/s{engines}."
        )
    else:
        done = "Nothing to do: every image of the source is in the table."
    lines = [*random_weights_lines(record["contract"]), done, ledger_line(record["ledger"])]
    if record["rejects_by_code"]:
        codes = ", ".join(f"{count} {code}" for code, count in record["rejects_by_code"].items())
        lines.append(f"Rejects: {codes}; see {record['table']}/rejects/*.parquet")
    return "\n".join([*lines, f"Table: {record['table']}"])


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("embed", EmbedOptions, embed, summary, argv)


if __name__ == "__main__":
    sys.exit(main())
