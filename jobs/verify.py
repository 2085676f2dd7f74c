"""Check a table, and some of its rows against their images: python -m jobs.verify --table DIR [--sample N]."""

from __future__ import annotations

import sys
from typing import Any

from jobs.cli import run_job
from jobs.text import ledger_line, random_weights_lines
from pipeline.verify import VerifyOptions, verify


def summary(record: dict[str, Any]) -> str:
    """Return what a person wants to know of a table that is whole."""
    lines = [
        *random_weights_lines(record["contract"]),
        f"Verified {record['files']} files ({record['bytes'] / 1e6:.1f} MB) and {record['plans']} plans in "
        f"{record['seconds']:.1f} s: nothing is wrong.",
        ledger_line(record["ledger"]),
    ]
    if record["without_manifest"]:
        lines.append(f"{len(record['without_manifest'])} complete plans have no whole manifest; jobs.embed writes it.")
    others = len(record["orphans"]) + len(record["temporary_files"])
    if others:
        lines.append(f"{others} files are not the table's; --clean removes those that may be, --json lists them.")
    if record["removed"]:
        lines.append(f"Removed {len(record['removed'])} files: {', '.join(record['removed'][:10])}")
    return "\n".join([*lines, *_sample_lines(record["sample"]), f"Table: {record['table']}"])


def _sample_lines(sample: dict[str, Any] | None) -> list[str]:
    if sample is None:
        return []
    line = f"Sample of {sample['rows']} rows (seed {sample['seed']}): {sample['compared']} compared"
    if sample["compared"]:
        line += (
            f", cosine similarity {sample['mean_cosine']:.6f} on average, {sample['worst_cosine']:.6f} at worst "
            f"({sample['worst_uri']})"
        )
    return [f"{line}; {sample['changed']} images changed since, {sample['missing']} gone."]


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("verify", VerifyOptions, lambda options, _: verify(options), summary, argv)


if __name__ == "__main__":
    sys.exit(main())
