"""Which backbone a table's features come from: the one that was asked for, or a quantised one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline import storage
from pipeline.actor import BackboneSpec
from pipeline.backbones import quantised_network
from pipeline.contract import FeatureContract, require_same_features
from pipeline.engines import require_cpu_engine, require_here
from pipeline.errors import ContractMismatch, WeightsError
from pipeline.int8.options import Int8Options
from pipeline.quantised import QuantisedNetwork
from pipeline.sources import Source
from pipeline.storage import StorageOptions
from pipeline.table import Table, read_info, table_exists

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The backbone of a table.

    Args:
        backbone: What actors load.
        network: The file of a quantised network, which the table is to hold; None for floats.
        report: For the run's record: under ``quantisation``, how near a quantised network is to its float one.
    """

    backbone: BackboneSpec
    network: bytes | None = None
    report: Mapping[str, Any] = field(default_factory=dict)


def choose_backbone(given: BackboneSpec, table: Table, source: Source, options: Int8Options) -> Chosen:
    """Return the backbone of a table; where int8 is asked for a new table, quantise its network.

    A table that has a quantised network keeps to it: with the same calibration images, another version of the toolkit
    or another processor may give other numbers.

    Args:
        given: What the options name.
        table: The table, which may not be there yet. Nothing is written into it.
        source: Where the images for calibration are.
        options: The run's.

    Raises:
        ConfigError: It can't be done, or the quantised network is too far from the float one.
        ContractMismatch: The table has other features.
        WeightsError: Weights are missing or damaged.
        TransientError: The source can't be read now.
        OSError: Likewise, or the table.
    """
    stored = read_info(table).contract if table_exists(table) else None
    if given.contract.quantisation is not None:
        return _with_network(given, table, _network(given.weights, options), options)
    if stored is not None and stored.quantisation is not None and options.precision in ("auto", "int8"):
        _require_same_floats(stored, given.contract, table)
        uri = table.network_uri(stored)
        return _with_network(given, table, _network(uri, options, options.table_storage_options), options)
    if options.precision != "int8":
        return Chosen(given)
    if stored is not None:
        raise ContractMismatch(
            f"Table {table.uri} was made with {stored.describe()}, in floats; this run asks for --precision int8, "
            "which are other features. Use another --table, or leave --precision out."
        )
    require_cpu_engine(options.engine, options.device)
    require_here("openvino", "int8", "cpu")
    storage.require_folder(table.uri, "--table")
    from pipeline.int8.make import quantised_by_sample  # imports what only calibration needs

    return _with_network(given, table, quantised_by_sample(given, source, options), options)


def _network(uri: str, options: Int8Options, storage_options: StorageOptions | None = None) -> QuantisedNetwork:
    network = quantised_network(uri, options.cache_dir, storage_options)
    if network is None:
        raise WeightsError(f"Expected a quantised network in {storage.redact(uri)}; the file holds none. Restore it.")
    return network


def _with_network(given: BackboneSpec, table: Table, network: QuantisedNetwork, options: Int8Options) -> Chosen:
    """Return the backbone that a table has by a network, which is to lie with it."""
    contract = replace(network.contract, weights=table.network_uri(network.contract))
    backbone = BackboneSpec(
        contract, given.preprocessing, contract.weights, options.cache_dir, options.table_storage_options
    )
    return Chosen(backbone, network.to_bytes(), {"quantisation": dict(network.report)})


def _require_same_floats(stored: FeatureContract, given: FeatureContract, table: Table) -> None:
    what = f"The network of table {table.uri} was quantised from one that"
    advice = "Use another --table, or the same --backbone, --weights and --preprocess as before."
    require_same_features(stored.before_quantisation(), given, what, advice)
