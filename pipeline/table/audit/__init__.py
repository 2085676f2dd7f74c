"""Check a table against its plans, its manifests and its contract, and clear away what is not its own."""

from pipeline.table.audit.check import Audit, audit
from pipeline.table.audit.findings import Breach, Findings

__all__ = ["Audit", "Breach", "Findings", "audit"]
