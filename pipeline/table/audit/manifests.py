"""Compare what manifests say of files with the files."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.table.audit.files import Content
from pipeline.table.audit.findings import Findings
from pipeline.table.info import TableInfo
from pipeline.table.plan import Plan
from pipeline.table.schema import FORMAT_VERSION, Table, unit_name

_PARALLEL_READS = 16


@dataclass(frozen=True, slots=True)
class Claim:
    """What a manifest says of a file.

    Args:
        plan: The manifest's plan.
        rows: The file's rows.
        sha256: Its digest (hex).
    """

    plan: str
    rows: int
    sha256: str


@dataclass(slots=True)
class Manifests:
    """What all manifests of a table say.

    Args:
        values: By their plans.
        claims: By the files' paths in the table.
        damaged: Why others can't be read, by their plans.
        doubted: Paths of files that were found not to be as claimed.
    """

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    doubted: list[str] = field(default_factory=list)

    def compare(self, path: str, content: Content) -> None:
        """Compare a file that has been read with what is claimed of it."""
        claim = self.claims.get(path)
        if claim is not None and (claim.sha256, claim.rows) != (content.sha256, content.num_rows):
            self.doubted.append(path)


def read_manifests(table: Table, names: Collection[str]) -> Manifests:
    """Read the manifests of some names."""

    def read(name: str) -> Any:
        try:
            return json.loads(table.store.read_bytes(f"{table.uri}/manifests/{name}"))
        except ValueError as error:
            return error

    manifests = Manifests()
    names = sorted(name for name in names if name.endswith(".json"))
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for name, value in zip(names, pool.map(read, names), strict=True):
            plan = name.removesuffix(".json")
            try:
                manifests.claims.update(_claims(plan, value))
                manifests.values[plan] = value
            except (KeyError, TypeError, ValueError) as error:
                manifests.damaged[plan] = f"{type(error).__name__}: {error}"
    return manifests


def _claims(plan: str, value: Any) -> dict[str, Claim]:
    if isinstance(value, ValueError):
        raise value
    if value["plan"] != plan:
        raise ValueError(f"it is that of plan {value['plan']}")
    claims = {str(file["path"]): Claim(plan, int(file["rows"]), str(file["sha256"])) for file in value["files"]}
    return {path: claim for path, claim in claims.items() if path.partition("/")[2].startswith(f"{plan}-")}


def check_manifests(
    table: Table,
    info: TableInfo,
    manifests: Manifests,
    plans: Collection[Plan],
    committed: Collection[str],
    read: Set[str],
    findings: Findings,
) -> list[str]:
    """Check that manifests agree with their plans, with themselves, and with the files that they name.

    Args:
        table: Where they are.
        info: What the table says of itself.
        manifests: What they say; compared with the files that were read.
        plans: The table's plans.
        committed: The names of committed units.
        read: Paths of the files that were read.
        findings: Where breaches go.

    Returns:
        The names of plans that are complete, and that no manifest names all files of, yet.
    """
    unfinished = []
    for plan in plans:
        units = [unit_name(plan.name, number) for number in range(plan.num_units)]
        value = manifests.values.get(plan.name)
        if plan.name in manifests.damaged:
            message = f"Expected the manifest of plan {plan.name}, but it is damaged ({manifests.damaged[plan.name]})."
            findings.add("manifests", table.manifest_uri(plan.name), message)
        if value is not None and units:
            for problem in _problems(value, plan, units, info):
                findings.add("manifests", table.manifest_uri(plan.name), problem)
        is_complete = bool(units) and all(name in committed for name in units)
        if is_complete and (value is None or len(value["files"]) < 2 * len(units)):
            unfinished.append(plan.name)
    known = {plan.name for plan in plans}
    missing = [path for path, claim in manifests.claims.items() if claim.plan in known and path not in read]
    for path in sorted({*manifests.doubted, *missing}):
        _check_again(table, manifests.claims[path].plan, path, findings)
    return unfinished


def _problems(value: Mapping[str, Any], plan: Plan, units: list[str], info: TableInfo) -> list[str]:
    """Return what is wrong with a manifest itself."""
    problems = []
    expected = {
        "format_version": FORMAT_VERSION,
        "contract_digest": info.contract.digest,
        "num_units": plan.num_units,
    }
    for name, wanted in expected.items():
        if value.get(name) != wanted:
            problems.append(f"Expected {name} to be {wanted!r}, got {value.get(name)!r}.")
    paths = {f"{folder}/{name}.parquet" for name in units for folder in ("data", "rejects")}
    foreign = [file["path"] for file in value["files"] if file["path"] not in paths]
    if foreign:
        problems.append(f"Expected files of its plan's units only, got {len(foreign)} others; the first: {foreign[0]}.")
    counts = _counts(value.get("ledger"))
    if counts is None:
        told = value.get("ledger")
        problems.append(f"Expected a ledger in which planned = embedded + rejected and pending = 0, got {told}.")
    elif len(value["files"]) == len(paths):  # while files are named again, the ledger is that of before
        rows = {"data": 0, "rejects": 0}
        for file in value["files"]:
            rows[file["path"].partition("/")[0]] += file["rows"]
        if (rows["data"], rows["rejects"]) != counts:
            problems.append(f"The ledger has {counts[0]} embedded and {counts[1]} rejected, its files have {rows}.")
    return problems


def _counts(ledger: Any) -> tuple[int, int] | None:
    """Return how many are embedded and rejected by the ledger of a complete plan; None for one that is none."""
    if not isinstance(ledger, dict):
        return None
    planned, embedded, rejected, pending = (ledger.get(n) for n in ("planned", "embedded", "rejected", "pending"))
    if not (isinstance(embedded, int) and isinstance(rejected, int)) or pending != 0 or planned != embedded + rejected:
        return None
    return embedded, rejected


def _check_again(table: Table, plan: str, path: str, findings: Findings) -> None:
    """Compare a file once more with what its manifest says; a run takes it out there before it replaces the file."""
    uri = f"{table.uri}/{path}"
    before = _claim_now(table, plan, path)
    try:
        data: bytes | None = table.store.read_bytes(uri)
    except FileNotFoundError:
        data = None
    if before is None or _claim_now(table, plan, path) != before:
        return
    manifest = table.manifest_uri(plan)
    if data is None:
        findings.add("manifests", uri, f"Expected the file that {manifest} names, found none.")
        return
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != before.sha256:
        reason = "The file was changed or damaged: restore it."
        findings.add("manifests", uri, f"Expected SHA-256 {before.sha256} by {manifest}, got {sha256}. {reason}")
        return
    try:
        num_rows = pq.read_metadata(io.BytesIO(data)).num_rows
    except (pa.ArrowException, OSError) as error:
        findings.add("manifests", uri, f"Expected {before.rows} rows by {manifest}; the file can't be read: {error}")
        return
    if num_rows != before.rows:
        findings.add("manifests", uri, f"Expected {before.rows} rows by {manifest}, got {num_rows}.")


def _claim_now(table: Table, plan: str, path: str) -> Claim | None:
    try:
        return _claims(plan, json.loads(table.store.read_bytes(table.manifest_uri(plan)))).get(path)
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None
