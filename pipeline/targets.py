"""What a run writes: into which table, with which backbone, in which columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from pipeline.actor import BackboneSpec
from pipeline.backbones import load_backbone, resolve_weights
from pipeline.contract import FeatureContract, require_same_features
from pipeline.stages.commit import Finish, to_schema
from pipeline.stages.derive import Derive
from pipeline.storage import StorageOptions
from pipeline.table import Table, TableInfo, data_schema


@dataclass(frozen=True, slots=True)
class Target:
    """What a run writes.

    Args:
        table: Where.
        info: What the table says of itself.
        backbone: What to embed with, meeting the table's contract.
        embedding_type: Arrow type of the embeddings.
        finish: Gives what makes the data files' columns, for the extra columns that the table has from each plan on,
            by the plan's name.
        network: The file of the quantised network that the table is to hold; None: none, or it holds it already.
        derive: What is made of the embeddings where they are computed, for a table that holds that instead; None: it
            holds the embeddings.
    """

    table: Table
    info: TableInfo
    backbone: BackboneSpec
    embedding_type: pa.DataType
    finish: Callable[[Mapping[str, pa.Schema]], Finish]
    network: bytes | None = None
    derive: Derive | None = None


def backbone_spec(
    name: str, weights: str, preprocess: str | None, cache_dir: str, storage_options: StorageOptions | None = None
) -> BackboneSpec:
    """Load a backbone here, and return what an actor needs to load it too.

    Args:
        name: The backbone's name.
        weights: As in `pipeline.backbones.load_backbone`.
        preprocess: Name of a preset; None for the backbone's default.
        cache_dir: Where fetched weights are kept.
        storage_options: Of the object store that holds a quantised network.

    Raises:
        ConfigError: Unknown name, preset or weights.
        WeightsError: The weights can't be had or don't fit.
    """
    loaded = load_backbone(name, weights, preprocess, cache_dir=cache_dir, storage_options=storage_options)
    resolved = resolve_weights(name, weights)
    return BackboneSpec(loaded.contract, loaded.preprocessing, resolved, cache_dir, storage_options or {})


def backbone_of(
    contract: FeatureContract,
    weights: str | None,
    cache_dir: str,
    where: str,
    advice: str,
    storage_options: StorageOptions | None = None,
) -> BackboneSpec:
    """Return the backbone that gives the features which a table or a head has.

    Args:
        contract: The features.
        weights: Where the weights are; None for where the contract says.
        cache_dir: Where fetched weights are kept.
        where: What has these features, for the error.
        advice: What to do where the weights are others.
        storage_options: Of the object store that holds a quantised network, where ``weights`` don't say another place.

    Raises:
        ContractMismatch: The weights give other features.
        WeightsError: They can't be read.
    """
    options = storage_options if weights is None and contract.quantisation is not None else None
    weights, preset = weights or contract.weights, str(contract.preprocessing["name"])
    spec = backbone_spec(contract.backbone, weights, preset, cache_dir, options)
    require_same_features(contract, spec.contract, where, advice)
    return replace(spec, contract=contract)


def table_backbone(
    table: Table, info: TableInfo, weights: str | None, cache_dir: str, storage_options: StorageOptions
) -> BackboneSpec:
    """Return the backbone of a table's rows; a quantised one lies with the table, wherever that has been moved to.

    Raises:
        ContractMismatch: The weights give other features.
        WeightsError: They can't be read.
    """
    contract = info.contract
    if contract.quantisation is not None:
        contract = replace(contract, weights=table.network_uri(contract))
    advice = "Give the weights that it was made with as --weights."
    return backbone_of(contract, weights, cache_dir, f"Table {table.uri}", advice, storage_options)


def embedding_target(table: Table, info: TableInfo, backbone: BackboneSpec, network: bytes | None = None) -> Target:
    """Return what makes an embedding table's rows; ``network`` as in `Target`."""
    schema = data_schema(info.dtype or "float32", info.contract.embedding_dim)
    vector = schema.field("embedding").type
    return Target(
        table, info, backbone, vector, lambda columns: partial(to_schema, schema=schema, columns=columns), network
    )
