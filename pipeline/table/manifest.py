"""The ledger of a run and the manifest of a complete plan."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import pyarrow.parquet as pq

from pipeline import __version__, storage
from pipeline.table.commit import count_rows, sha256_of
from pipeline.table.plan import Unit, committed_names
from pipeline.table.schema import FORMAT_VERSION, Table, TableInfo, unit_name


@dataclass(frozen=True, slots=True)
class Ledger:
    """The accounting of a run, in images; ``planned = embedded + rejected + pending``."""

    planned: int
    embedded: int
    rejected: int
    pending: int

    def to_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


def pending_units(table: Table, units: Sequence[Unit]) -> list[Unit]:
    """Return the units that are not committed."""
    committed = committed_names(table)
    return [unit for unit in units if unit_name(unit.plan, unit.number) not in committed]


def count_codes(table: Table, units: Sequence[Unit]) -> dict[str, int]:
    """Return how many rejects of each code the committed ones of some units have."""
    count: Counter[str] = Counter()
    for unit in set(units) - set(pending_units(table, units)):
        path = storage.local_path(table.rejects_uri(unit.plan, unit.number))
        count.update(pq.read_table(path, columns=["code"])["code"].to_pylist())
    return dict(sorted(count.items()))


def make_ledger(table: Table, units: Sequence[Unit]) -> Ledger:
    """Count what has become of the images of some units, from the table itself."""
    committed = committed_names(table)
    planned = embedded = rejected = 0
    for unit in units:
        planned += unit.num_images
        if unit_name(unit.plan, unit.number) in committed:
            rows, rejects = count_rows(table, unit)
            embedded += rows
            rejected += rejects
    return Ledger(planned, embedded, rejected, planned - embedded - rejected)


def versions() -> dict[str, str]:
    """Return the versions of what shapes the results."""
    packages = ("ray", "torch", "openvino", "opencv-python-headless", "pillow", "pyarrow", "numpy")
    return {
        "vision-embedding-pipeline": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def write_manifest(
    table: Table,
    info: TableInfo,
    units: Sequence[Unit],
    run: dict[str, Any],
    digests: Mapping[Unit, tuple[str, str]],
) -> bool:
    """Write the manifest of a plan whose units are all committed.

    Args:
        table: Where the plan belongs.
        info: What the table holds.
        units: All units of one plan.
        run: The run that completed it: its timings and engines.
        digests: SHA-256 (hex) of data and rejects file of the units that this run wrote; the others are read again.

    Returns:
        Whether it was written; False where units are pending or the manifest was there already.
    """
    plan = units[0].plan
    if storage.exists(table.manifest_uri(plan)):
        return False
    ledger = make_ledger(table, units)
    if ledger.pending:
        return False
    files = []
    for unit in units:
        rows, rejects = count_rows(table, unit)
        data_uri, rejects_uri = table.data_uri(plan, unit.number), table.rejects_uri(plan, unit.number)
        data_sha256, rejects_sha256 = digests.get(unit) or (sha256_of(data_uri), sha256_of(rejects_uri))
        name = f"{unit_name(plan, unit.number)}.parquet"
        files.append({"path": f"data/{name}", "rows": rows, "sha256": data_sha256})
        files.append({"path": f"rejects/{name}", "rows": rejects, "sha256": rejects_sha256})
    manifest = {
        "format_version": FORMAT_VERSION,
        "plan": plan,
        "contract_digest": info.contract.digest,
        "num_units": len(units),
        "ledger": ledger.to_json(),
        "files": files,
        "completed_by": run,
        "versions": versions(),
    }
    return storage.put_if_absent(table.manifest_uri(plan), (json.dumps(manifest, indent=2) + "\n").encode())
