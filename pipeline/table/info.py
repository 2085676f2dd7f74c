"""What a table holds, as table.json says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from pipeline import __version__
from pipeline.choices import EmbeddingType
from pipeline.contract import FeatureContract, canonical_json, require_same_features
from pipeline.errors import ContractMismatch, TableError
from pipeline.table.schema import FORMAT_VERSION, Table

Kind = Literal["embeddings", "predictions"]


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What table.json says.

    Args:
        kind: ``embeddings``, or ``predictions`` for the output of `pipeline.predict`.
        contract: The features that the table holds or that its predictions came from.
        dtype: Type of the stored embeddings; None for predictions.
        head_sha256: The head that predicted; None for embeddings.
        threshold: Below which probability (0 to 1) the predicted label is ``unknown_label``; None: nowhere.
        unknown_label: What is predicted there; None without a threshold.
    """

    kind: Kind
    contract: FeatureContract
    dtype: EmbeddingType | None
    head_sha256: str | None = None
    threshold: float | None = None
    unknown_label: str | None = None

    @property
    def digest(self) -> str:
        """Digest (hex) of what a plan in such a table promises: the features, and what predicts where that is so."""
        if self.head_sha256 is None:
            return self.contract.digest
        promised = f"{self.contract.digest}:{self.head_sha256}"
        if self.threshold is not None:
            promised += f":{canonical_json([self.threshold, self.unknown_label])}"
        return hashlib.sha256(promised.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the content of table.json."""
        unknown = {"threshold": self.threshold, "unknown_label": self.unknown_label}
        return {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "contract": self.contract.to_json(),
            "dtype": self.dtype,
            "head_sha256": self.head_sha256,
            **({} if self.head_sha256 is None else unknown),
            "created_by": f"vision-embedding-pipeline {__version__}",
        }

    def describe_threshold(self) -> str:
        """Return what is predicted below which probability, in a few words."""
        return "none" if self.threshold is None else f"{self.threshold} (below it: {self.unknown_label!r})"

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> TableInfo:
        """Read what `to_json` wrote.

        Raises:
            TableError: Another format version, or damaged.
        """
        version = value.get("format_version")
        if version != FORMAT_VERSION:
            raise TableError(
                f"Expected table format {FORMAT_VERSION} in {where}, got {version!r}. "
                "Use the version of this package that wrote it."
            )
        try:
            contract = FeatureContract.from_json(value["contract"], where)
            unknown = (value.get(name) for name in ("threshold", "unknown_label"))  # older tables have none
            return cls(value["kind"], contract, value["dtype"], value["head_sha256"], *unknown)
        except KeyError as error:
            raise TableError(f"{where} lacks the field {error}: it was edited or damaged. Restore it.") from None


def table_exists(table: Table) -> bool:
    """Return whether there is a table."""
    return table.store.info(table.info_uri) is not None


def read_info(table: Table) -> TableInfo:
    """Read table.json.

    Raises:
        TableError: There is no table, or not one that this version reads.
    """
    if not table_exists(table):
        raise TableError(
            f"Expected a table at {table.uri}, found no table.json there. Check the path, or run jobs.embed."
        )
    try:
        value = json.loads(table.store.read_bytes(table.info_uri, 2**24))
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__} instead of an object")
    except ValueError as error:
        raise TableError(f"{table.info_uri} is no JSON ({error}): it was edited or damaged. Restore it.") from None
    return TableInfo.from_json(value, table.info_uri)


def check_info(table: Table, asked: TableInfo) -> None:
    """Refuse to write what doesn't belong into a table; a table that isn't there yet takes anything.

    Raises:
        ContractMismatch: The table holds other features, or predictions of another head or with another threshold.
        TableError: The table is of another kind, or holds another type.
    """
    if not table_exists(table):
        return
    stored = read_info(table)
    if stored.kind != asked.kind:
        raise TableError(f"Expected a folder for {asked.kind}, but {table.uri} holds {stored.kind}. Use another one.")
    require_same_features(
        stored.contract, asked.contract, f"Table {table.uri}", "Use another --table, or the same options as before."
    )
    if stored.dtype != asked.dtype:
        raise TableError(
            f"Table {table.uri} stores embeddings as {stored.dtype}; this run asks for {asked.dtype}. "
            f"Use another --table, or --dtype {stored.dtype}."
        )
    if stored.head_sha256 != asked.head_sha256:
        raise ContractMismatch(
            f"{table.uri} holds predictions of the head {str(stored.head_sha256)[:12]}…; this run uses the head "
            f"{str(asked.head_sha256)[:12]}…. Use another --output."
        )
    if (stored.threshold, stored.unknown_label) != (asked.threshold, asked.unknown_label):
        raise ContractMismatch(
            f"{table.uri} holds predictions with the threshold {stored.describe_threshold()}; this run asks for "
            f"{asked.describe_threshold()}. Use another --output, or the same --threshold and --unknown-label."
        )


def create_table(table: Table, info: TableInfo, network: bytes | None = None) -> None:
    """Write table.json unless it is there; another run may have been quicker, so check again afterwards.

    Args:
        table: Where.
        info: What it says.
        network: The file of the quantised network that the features come from, if so; written first, and restored
            where it is missing.
    """
    if network is not None and table.store.info(table.network_uri(info.contract)) is None:
        table.store.put_if_absent(table.network_uri(info.contract), network)
    if not table_exists(table):  # not every store minds the condition, see `pipeline.table.conditions`
        table.store.put_if_absent(table.info_uri, (json.dumps(info.to_json(), indent=2) + "\n").encode())
    check_info(table, info)
