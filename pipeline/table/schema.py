"""The table's files: names, columns, and the description in table.json. The format is docs/table-format.md."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from pipeline import __version__, storage
from pipeline.choices import EmbeddingType
from pipeline.contract import FeatureContract, canonical_json, require_same_features
from pipeline.errors import ContractMismatch, TableError
from pipeline.refs import REF_SCHEMA
from pipeline.storage import StorageOptions, Store

FORMAT_VERSION = 1

Kind = Literal["embeddings", "predictions"]

#: ``unit`` is -1 for what is no longer promised; ``replaces`` names the unit that has held the image's row so far.
PLAN_SCHEMA = REF_SCHEMA.insert(2, pa.field("unit", pa.int32(), nullable=False)).append(
    pa.field("replaces", pa.string())
)
IMAGE_FIELDS = [
    pa.field("uri", pa.string(), nullable=False),
    pa.field("sha256", pa.string(), nullable=False),
    pa.field("label", pa.string()),
    pa.field("split", pa.string()),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
]
REJECT_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)

PREDICTION_FIELDS = [
    pa.field("predicted_label", pa.string(), nullable=False),
    pa.field("probability", pa.float32(), nullable=False),
    pa.field("top5_labels", pa.list_(pa.string()), nullable=False),
    pa.field("top5_probabilities", pa.list_(pa.float32()), nullable=False),
]
PREDICTION_SCHEMA = pa.schema([*IMAGE_FIELDS[:4], *PREDICTION_FIELDS])


def embedding_type(dtype: EmbeddingType, embedding_dim: int) -> pa.DataType:
    """Return the Arrow type of the embedding column."""
    return pa.list_(pa.float16() if dtype == "float16" else pa.float32(), embedding_dim)


def data_schema(dtype: EmbeddingType, embedding_dim: int) -> pa.Schema:
    """Return the columns of an embedding table's data files."""
    return pa.schema([*IMAGE_FIELDS, pa.field("embedding", embedding_type(dtype, embedding_dim), nullable=False)])


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


@dataclass(frozen=True, slots=True)
class Table:
    """Names within one table, and the store that holds them.

    Args:
        uri: The table's folder.
        store: What reads and writes there; unset: the local file system.
    """

    uri: str
    store: Store = field(default_factory=storage.LocalStore)

    @property
    def info_uri(self) -> str:
        """URI of table.json."""
        return f"{self.uri}/table.json"

    def network_uri(self, contract: FeatureContract) -> str:
        """URI of the quantised network that the features come from, by its contract."""
        return f"{self.uri}/network/{contract.weights_sha256[:32]}.safetensors"

    def plan_uri(self, sequence: int) -> str:
        """URI of a plan, by its number."""
        return f"{self.uri}/plans/{sequence:06d}.parquet"

    def data_uri(self, name: str) -> str:
        """URI of a unit's rows, by the unit's name."""
        return f"{self.uri}/data/{name}.parquet"

    def rejects_uri(self, name: str) -> str:
        """URI of a unit's rejects, by the unit's name."""
        return f"{self.uri}/rejects/{name}.parquet"

    def manifest_uri(self, plan: str) -> str:
        """URI of a complete plan's manifest."""
        return f"{self.uri}/manifests/{plan}.json"


def unit_name(plan: str, unit: int) -> str:
    """Return the name that a unit's files share."""
    return f"{plan}-{unit:06d}"


def sequence_of(name: str) -> int:
    """Return the number of the plan that a plan's or a unit's name begins with."""
    return int(name.partition("-")[0])


def open_table(uri: str, options: StorageOptions | None = None) -> Table:
    """Return the table at a path or URI.

    Args:
        uri: Where it is or will be.
        options: Of the remote file system, see `pipeline.storage.store_for`.
    """
    place = storage.absolute(uri)
    return Table(place, storage.store_for(place, options))


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
