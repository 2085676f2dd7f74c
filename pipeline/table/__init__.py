"""The embedding table: plan, commit, ledger, read."""

from pipeline.table.again import plan_retry, replan
from pipeline.table.amend import encode, take_back, take_out
from pipeline.table.changes import planned_changes
from pipeline.table.commit import Committed, Counts, commit_unit, count_rows
from pipeline.table.conditions import probe, take_out_ahead
from pipeline.table.info import TableInfo, check_info, create_table, read_info, table_exists
from pipeline.table.ledger import Ledger, count_codes, make_ledger, pending_units
from pipeline.table.listing import Listing, Planned
from pipeline.table.manifest import FileDigests, count_units, forget_files, is_complete, read_manifests, write_manifest
from pipeline.table.plan import Plan, Unit, committed_names, list_plans, plan_batches, ref_columns, unit_refs
from pipeline.table.planning import load_promises, plan_source
from pipeline.table.read import data_files, embeddings, iter_files, iter_rows, read_file, read_rows
from pipeline.table.schema import Table, data_schema, open_table, unit_name

__all__ = [
    "Committed",
    "Counts",
    "FileDigests",
    "Ledger",
    "Listing",
    "Plan",
    "Planned",
    "Table",
    "TableInfo",
    "Unit",
    "check_info",
    "commit_unit",
    "committed_names",
    "count_codes",
    "count_rows",
    "count_units",
    "create_table",
    "data_files",
    "data_schema",
    "embeddings",
    "encode",
    "forget_files",
    "is_complete",
    "iter_files",
    "iter_rows",
    "list_plans",
    "load_promises",
    "make_ledger",
    "open_table",
    "pending_units",
    "plan_batches",
    "plan_retry",
    "plan_source",
    "planned_changes",
    "probe",
    "read_file",
    "read_info",
    "read_manifests",
    "read_rows",
    "ref_columns",
    "replan",
    "table_exists",
    "take_back",
    "take_out",
    "take_out_ahead",
    "unit_name",
    "unit_refs",
    "write_manifest",
]
