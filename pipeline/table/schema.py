"""The table's files: names, columns, and the description in table.json. The format is docs/table-format.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from pipeline import storage
from pipeline.choices import EmbeddingType
from pipeline.contract import FeatureContract
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
