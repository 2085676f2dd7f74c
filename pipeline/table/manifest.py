"""The manifests of complete plans."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from pipeline import __version__
from pipeline.errors import TransientError
from pipeline.table.commit import Counts, count_rows, sha256_of
from pipeline.table.info import TableInfo
from pipeline.table.ledger import make_ledger
from pipeline.table.plan import Unit
from pipeline.table.schema import FORMAT_VERSION, Table

_PARALLEL_READS = 16
#: Other writers that may replace the same manifest first before this one gives up for now.
_ATTEMPTS = 20
#: SHA-256 (hex) of a unit's data file and rejects file.
FileDigests = tuple[str, str]


def count_units(table: Table, units: Iterable[Unit]) -> dict[str, Counts]:
    """Return what committed units hold, by their names: from the manifests, and else from the files' footers."""
    units = list(units)
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        manifests = pool.map(lambda plan: _read_manifest(table, plan)[0], sorted({unit.plan for unit in units}))
        files = {file["path"]: file for manifest in manifests if manifest is not None for file in manifest["files"]}
        counts, others = {}, []
        for unit in units:
            data, rejects = (files.get(path) for path in _paths(unit))
            if data is None or rejects is None:
                others.append(unit.name)
            else:
                counts[unit.name] = Counts(data["rows"], rejects["rows"], data.get("reused", 0))
        counts.update(zip(others, pool.map(lambda name: count_rows(table, name), others), strict=True))
    return counts


def _paths(unit: Unit) -> tuple[str, str]:
    return f"data/{unit.name}.parquet", f"rejects/{unit.name}.parquet"


def is_complete(table: Table, units: Sequence[Unit]) -> bool:
    """Return whether the plan of some units, all that it has, has a manifest that names all their files."""
    manifest, _ = _read_manifest(table, units[0].plan)
    return manifest is not None and len(manifest["files"]) == 2 * len(units)


@cache
def versions() -> dict[str, str]:
    """Return the versions of what shapes the results."""
    packages = ("ray", "torch", "openvino", "opencv-python-headless", "pillow", "pyarrow", "numpy", "fsspec")
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
    digests: Mapping[str, FileDigests],
    in_change: Callable[[], set[str]] = set,
) -> bool:
    """Write the manifest of a plan whose units are all committed, unless a whole one is there.

    The first one names no file yet. So there is always one for `forget_files` to make another of, which whoever has
    looked at the files before that can't replace any more.

    Args:
        table: Where the plan belongs.
        info: What the table holds.
        units: All units of one plan, with what each promises by now.
        run: The run that completed it: its timings and engines.
        digests: Digests of the files that this run wrote, by the units' names; the others are read again.
        in_change: Returns the names of units that rows are about to be taken out of, by any run.

    Returns:
        Whether it was written.
    """
    plan = units[0].plan
    for _ in range(_ATTEMPTS):
        there, version = _read_manifest(table, plan)
        listed = {} if there is None else {file["path"]: file for file in there["files"]}
        # Asked after the manifest was read: whoever plans a change later makes another version of it than this one.
        changing = in_change()
        if len(listed) == 2 * len(units) or any(unit.name in changing for unit in units):
            return False
        counts: dict[str, Counts] = {}
        files: list[dict[str, Any]] = []
        if there is not None:
            # What is counted now is counted after those changes were made that ``changing`` has no more.
            counts = count_units(table, units)
            entries = partial(_entries, table, listed=listed, counts=counts, digests=digests)
            with ThreadPoolExecutor(_PARALLEL_READS) as pool:
                files = [entry for part in pool.map(entries, units) for entry in part]
        manifest = {
            "format_version": FORMAT_VERSION,
            "plan": plan,
            "contract_digest": info.contract.digest,
            "num_units": len(units),
            "ledger": make_ledger(units if counts else [], counts).to_json(),
            "forgotten": 0 if there is None else there.get("forgotten", 0),
            "files": files,
            "completed_by": run,
            "versions": versions(),
        }
        if _put_manifest(table, plan, manifest, version) and files:
            return True
    return False


def _entries(
    table: Table,
    unit: Unit,
    listed: Mapping[str, dict[str, Any]],
    counts: Mapping[str, Counts],
    digests: Mapping[str, FileDigests],
) -> list[dict[str, Any]]:
    """Return what a manifest says of a unit's two files."""
    paths = _paths(unit)
    if all(path in listed for path in paths):
        return [listed[path] for path in paths]
    count = counts[unit.name]
    known = None if count.amended else digests.get(unit.name)
    data, rejects = known or [sha256_of(table, f"{table.uri}/{path}") for path in paths]
    return [
        {"path": paths[0], "rows": count.rows, "reused": count.reused, "sha256": data},
        {"path": paths[1], "rows": count.rejects, "sha256": rejects},
    ]


def forget_files(table: Table, names: Iterable[str]) -> None:
    """Take the files of some units out of their plans' manifests, before rows are taken out of those files.

    What a manifest names always has the digest that the manifest gives. `write_manifest` puts them back. A manifest
    that doesn't name them gets another version, too, so that no run puts them back which has looked at them before.

    Raises:
        TransientError: Other runs replaced a manifest again and again meanwhile.
    """
    names = set(names)
    gone = {f"{folder}/{name}.parquet" for name in names for folder in ("data", "rejects")}
    for plan in sorted({name.rpartition("-")[0] for name in names}):
        for _ in range(_ATTEMPTS):
            manifest, version = _read_manifest(table, plan)
            if manifest is None:
                break
            kept = [file for file in manifest["files"] if file["path"] not in gone]
            forgotten = {**manifest, "forgotten": manifest.get("forgotten", 0) + 1, "files": kept}
            if _put_manifest(table, plan, forgotten, version):
                break
        else:
            raise TransientError(f"{table.manifest_uri(plan)} is replaced by other runs. Run again once they are done.")


def read_manifests(table: Table) -> Iterator[dict[str, Any]]:
    """Yield the manifests of all plans that have one, in the order of the plans' names."""
    for name in sorted(table.store.list_names(f"{table.uri}/manifests")):
        if name.endswith(".json"):
            manifest, _ = _read_manifest(table, name.removesuffix(".json"))
            if manifest is not None:
                yield manifest


def _read_manifest(table: Table, plan: str) -> tuple[dict[str, Any] | None, str | None]:
    """Return a manifest and the version of its file, which was there before the manifest was read."""
    uri = table.manifest_uri(plan)
    info = table.store.info(uri)
    if info is None:
        return None, None
    manifest: dict[str, Any] = json.loads(table.store.read_bytes(uri))
    return manifest, info.version


def _put_manifest(table: Table, plan: str, manifest: dict[str, Any], version: str | None) -> bool:
    uri, data = table.manifest_uri(plan), _encode(manifest)
    return table.store.put_if_absent(uri, data) if version is None else table.store.replace_if(uri, data, version)


def _encode(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=2) + "\n").encode()
