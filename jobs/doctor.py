"""Which stage is slow, what to do, how long it will take: python -m jobs.doctor --source DIR [--table DIR]."""

from __future__ import annotations

import sys

from jobs.cli import run_job
from jobs.diagnosis import diagnosis_text
from pipeline.doctor import DoctorOptions, diagnose


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("doctor", DoctorOptions, lambda options, _: diagnose(options), diagnosis_text, argv)


if __name__ == "__main__":
    sys.exit(main())
