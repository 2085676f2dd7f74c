"""The verify job: is a table what its plans, manifests and contract say, and are its rows what its sources give?"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator

from pipeline.errors import ConfigError, RunIncomplete, TableError, VerificationFailed
from pipeline.images import MAX_IMAGE_BYTES
from pipeline.options import Options, flags
from pipeline.storage import default_cache_dir
from pipeline.table import Plan, Table, TableInfo, list_plans, open_table, read_info
from pipeline.table.audit import Audit, audit

#: Breaches, and other files, that a message names.
_SHOWN = 20
#: Names of each kind that a record lists.
_LISTED = 1000
#: Options that mean something with --sample only.
_OF_SAMPLE = ("seed", "min_cosine", "weights", "max_image_bytes")


class VerifyOptions(Options):
    """Check a table: every file, every promised image, each exactly once. It may be in use meanwhile."""

    table: str = Field(description="Folder of the table, local or in an object store: of embeddings or of predictions.")
    sample: int | None = Field(
        None, ge=1, description="Also read so many images again, embed them and compare (rows chosen at random)."
    )
    seed: int | None = Field(None, ge=0, description="Of the choice of --sample; unset: a new one, printed.")
    min_cosine: float = Field(
        0.99,
        ge=-1,
        le=1,
        description="Least cosine similarity of a stored embedding and one that is computed again in float32, or "
        "with the table's quantised network. Rows of fp32 runs agree to 0.99999, of bf16 runs to 0.995, see "
        "docs/backbones.md.",
    )
    weights: str | None = Field(
        None, description="With --sample: weights of the backbone; unset: those that the table's contract names."
    )
    max_image_bytes: int = Field(MAX_IMAGE_BYTES, ge=1, description="With --sample: longest image file (bytes).")
    clean: bool = Field(
        False, description="Remove files that no plan explains, and temporary files of killed writers; nothing else."
    )
    grace_s: float = Field(
        86400,
        ge=0,
        description="Leave what was written less than so long ago (seconds): a temporary file may be that of a writer "
        "at work or asleep, and the clocks of machines differ.",
    )
    table_storage_options: dict[str, Any] = Field({}, description="Of the table's file system, as for jobs.embed.")
    cache_dir: str = Field(default_cache_dir(), description="Folder where fetched weights are kept.")
    verbose: bool = Field(False, description="Show the traceback of a failure.")

    @model_validator(mode="after")
    def _belongs(self) -> VerifyOptions:
        given = [name for name in _OF_SAMPLE if name in self.model_fields_set]
        if self.sample is None and given:
            raise ValueError(f"{flags(given)} can be used with --sample only")
        if not self.clean and "grace_s" in self.model_fields_set:
            raise ValueError("--grace-s can be used with --clean only")
        return self


def verify(options: VerifyOptions) -> dict[str, Any]:
    """Check a table.

    Returns:
        The record, as plain JSON values.

    Raises:
        ConfigError: There is no table, or its rows can't be computed again as asked.
        RunIncomplete: Nothing is wrong, but images are pending, or images of the sample can't be read now.
        VerificationFailed: Something is wrong.
        OSError: The table can't be read now.
    """
    started = time.perf_counter()
    table = open_table(options.table, options.table_storage_options)
    sampler = None if options.sample is None else _Sampler(table, options)
    found = audit(table, options.grace_s if options.clean else None)
    sample = None if sampler is None or found.info is None else sampler.compare(found)
    record = {
        "job": "verify",
        "status": "done",
        **_account(table, found),
        "sample": sample,
        "seconds": round(time.perf_counter() - started, 3),
        "options": options.record(),
    }
    return _judge(record, found)


class _Sampler:
    """What computes rows again; made before a table is read through, since weights may be out of reach."""

    def __init__(self, table: Table, options: VerifyOptions) -> None:
        self._table, self._options, self._count = table, options, options.sample or 0
        self._seed = secrets.randbelow(2**32) if options.seed is None else options.seed
        self._reference: Any = None
        info, plans = None, []
        with contextlib.suppress(TableError, OSError):  # what is damaged or out of reach, the audit finds
            info, plans = read_info(table), list_plans(table)
        if info is not None:
            self._require_sources(info, plans)
            self._reference = self._load(info)

    def _require_sources(self, info: TableInfo, plans: Sequence[Plan]) -> None:
        if info.kind != "embeddings":
            raise ConfigError(f"Expected embeddings in {self._table.uri}, got {info.kind}: leave --sample out.")
        unknown = [plan.name for plan in plans if plan.num_units and not plan.opened_with]
        if unknown:
            raise ConfigError(
                f"Plan {unknown[0]} of {self._table.uri} was made by a version that didn't note how its source is "
                "opened, so its images can't be read again. Leave --sample out."
            )

    def _load(self, info: TableInfo) -> Any:
        # PyTorch takes seconds to import: the rest goes without.
        from pipeline.backbones import load_backbone
        from pipeline.engines import load_engine

        contract, is_quantised = info.contract, info.contract.quantisation is not None
        backbone = load_backbone(
            contract.backbone,
            self._options.weights or (self._table.network_uri(contract) if is_quantised else contract.weights),
            str(contract.preprocessing["name"]),
            cache_dir=self._options.cache_dir,
            expected=contract,
            storage_options=self._options.table_storage_options if self._options.weights is None else None,
        )
        if is_quantised:
            return backbone, load_engine(backbone)
        return backbone, load_engine(backbone, "torch", "fp32", device="cpu")

    def compare(self, found: Audit) -> dict[str, Any] | None:
        """Compute some rows again, and note breaches."""
        if self._reference is None:
            return None
        from pipeline.recompute import choose, recompute

        backbone, engine = self._reference
        chosen = choose(found.committed, self._count, self._seed)
        again = recompute(self._table, chosen, backbone, engine, self._options.max_image_bytes)
        for where, message in again.wrong:
            found.findings.add("sample", where, message)
        least = self._options.min_cosine
        for uri, (cosine, where) in again.cosines.items():
            if not cosine >= least:
                message = f"Expected a cosine similarity of at least {least} to what {uri} gives now, got {cosine:.6f}."
                found.findings.add("sample", where, message)
        trouble = next(iter(again.unreadable.items()), None)
        return {
            "rows": sum(len(rows) for _, _, rows in chosen),
            "seed": self._seed,
            **again.to_json(),
            "trouble": None if trouble is None else f"{trouble[0]}: {trouble[1]}",
        }


def _account(table: Table, found: Audit) -> dict[str, Any]:
    """Return the part of the record that tells what was found."""
    account, left, findings = found.account, found.left, found.findings
    return {
        "table": table.uri,
        "kind": None if found.info is None else found.info.kind,
        "contract": None if found.info is None else found.info.contract.to_json(),
        "ledger": None if account is None else account.ledger.to_json(),
        "leaving": None if account is None else {"rows": account.leaving, "taken_back": account.taken_back},
        "plans": found.num_plans,
        "files": found.num_files,
        "bytes": found.num_bytes,
        "num_breaches": len(findings),
        "breaches_by_check": dict(findings.counts),
        "breaches": findings.to_json(),
        "without_manifest": found.unfinished[:_LISTED],
        "orphans": sorted({*left.orphans, *left.foreign} - set(left.removed))[:_LISTED],
        "temporary_files": sorted(set(left.temporary) - set(left.removed))[:_LISTED],
        "removed": left.removed,
        "kept": dict(list(left.kept.items())[:_LISTED]),
    }


def _judge(record: dict[str, Any], found: Audit) -> dict[str, Any]:
    """Return the record of a table that is whole.

    Raises:
        RunIncomplete: Something is pending.
        VerificationFailed: Something is wrong.
    """
    if len(found.findings):
        record["status"] = "breach"
        lines = [f"  {each.check}: {each.where}: {each.message}" for each in found.findings.kept[:_SHOWN]]
        more = len(found.findings) - len(lines)
        lines += [f"  and {more} more; --json lists the first of each check."] if more else []
        if "sample" in found.findings.counts:
            lines.append(f"--seed {record['sample']['seed']} chooses the same rows of the same table again.")
        raise VerificationFailed(
            "\n".join([f"{len(found.findings)} things are wrong with {record['table']}:", *lines]), record
        )
    account, sample = found.account, record["sample"]
    pending = []
    if account is not None and account.ledger.pending:
        pending.append(f"{account.ledger.pending} of {account.ledger.planned} images are pending")
    if account is not None and account.taken_back:
        pending.append(f"{account.taken_back} rows of pruned images are still to be taken out")
    if pending:
        record["status"] = "pending"
        reason = " and ".join(pending)
        raise RunIncomplete(f"Nothing is wrong with {record['table']}, but {reason}: run jobs.embed again.", record)
    if sample is not None and sample["unreadable"]:
        record["status"] = "pending"
        raise RunIncomplete(
            f"Nothing is wrong with {record['table']}, but {sample['unreadable']} images of the sample can't be read "
            f"now ({sample['trouble']}). Run again once they can be.",
            record,
        )
    return record
