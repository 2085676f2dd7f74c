"""The quantised network of a backbone, as weights that are given or that a contract names."""

from __future__ import annotations

from pipeline import storage
from pipeline.backbones.family import BackboneFamily
from pipeline.backbones.fetch import fetch
from pipeline.contract import FeatureContract, require_same_features
from pipeline.errors import ConfigError, WeightsError
from pipeline.preprocessing import Preprocessing
from pipeline.quantised import NetworkFiles, QuantisedNetwork, is_quantised, parse_network
from pipeline.storage import StorageOptions


def quantised_network(uri: str, cache_dir: str, options: StorageOptions | None = None) -> QuantisedNetwork | None:
    """Return the quantised network in a weights file; None where the file is another one.

    Args:
        uri: Where it is.
        cache_dir: Where remote weights are kept.
        options: Of the object store that holds it.

    Raises:
        WeightsError: There is no such file, or it is damaged.
        WeightsUnavailable: It can't be downloaded now.
    """
    if not storage.redact(uri).endswith(".safetensors"):
        return None
    path = fetch(uri, cache_dir, options=options)
    if not is_quantised(path):
        return None
    return parse_network(path.read_bytes(), storage.redact(uri))


def expected_files(uri: str, cache_dir: str, options: StorageOptions | None, expected: FeatureContract) -> NetworkFiles:
    """Return the files of the quantised network that a contract names.

    Args:
        uri: Where it is.
        cache_dir: Where remote weights are kept.
        options: Of the object store that holds it.
        expected: The contract.

    Raises:
        ContractMismatch: It is another one.
        WeightsError: There is none, or it is damaged.
        WeightsUnavailable: It can't be downloaded now.
    """
    network = quantised_network(uri, cache_dir, options)
    if network is None:
        raise WeightsError(
            f"Expected the quantised network of {expected.describe()} in {storage.redact(uri)}; it holds none. Give "
            "the one that the table's folder network/ has as --weights."
        )
    advice = "Give the network that it was made with as --weights."
    require_same_features(expected, network.contract, "What is being written", advice)
    return network.files


def require_backbone(contract: FeatureContract, family: BackboneFamily, preset: Preprocessing) -> None:
    """Refuse a quantised network of another backbone or preprocessing.

    Raises:
        ConfigError: It is one.
    """
    if (contract.backbone, contract.preprocessing) != (family.name, preset.to_json()):
        name = contract.preprocessing["name"]
        raise ConfigError(
            f"The quantised network in {contract.weights} is one of {contract.backbone} with the preprocessing {name}; "
            f"this run asks for {family.name} with {preset.name}. Give --backbone {contract.backbone} "
            f"--preprocess {name}."
        )
