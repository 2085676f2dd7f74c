"""Which failures are permanent and which may pass: one table, and how to look something up in it."""

from pipeline.failures.row import Failure, Seam, Verdict, status_of
from pipeline.failures.table import FAILURES, find, of_status

__all__ = ["FAILURES", "Failure", "Seam", "Verdict", "find", "of_status", "status_of"]
