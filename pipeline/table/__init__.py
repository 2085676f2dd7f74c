"""The embedding table: plan, commit, ledger, read."""

from pipeline.table.commit import Committed, commit_unit
from pipeline.table.manifest import Ledger, count_codes, make_ledger, pending_units, write_manifest
from pipeline.table.plan import Unit, committed_names, list_units, plan_missing, planned_refs, unit_refs
from pipeline.table.read import data_files, embeddings, read_rows
from pipeline.table.schema import (
    Table,
    TableInfo,
    check_info,
    create_table,
    data_schema,
    open_table,
    read_info,
    unit_name,
)

__all__ = [
    "Committed",
    "Ledger",
    "Table",
    "TableInfo",
    "Unit",
    "check_info",
    "commit_unit",
    "committed_names",
    "count_codes",
    "create_table",
    "data_files",
    "data_schema",
    "embeddings",
    "list_units",
    "make_ledger",
    "open_table",
    "pending_units",
    "plan_missing",
    "planned_refs",
    "read_info",
    "read_rows",
    "unit_name",
    "unit_refs",
    "write_manifest",
]
