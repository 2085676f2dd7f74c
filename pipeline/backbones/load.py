"""Load a backbone by name: network, weights, preprocessing, and the contract that they make."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pipeline import storage
from pipeline.backbones import weights as weights_file
from pipeline.backbones.family import BackboneFamily
from pipeline.backbones.microsoftvision import MICROSOFTVISION_RESNET50
from pipeline.backbones.pixels import PIXELS
from pipeline.contract import FeatureContract, require_same_features
from pipeline.errors import ConfigError
from pipeline.preprocessing import Preprocessing

BACKBONES: dict[str, BackboneFamily] = {family.name: family for family in (MICROSOFTVISION_RESNET50, PIXELS)}


@dataclass(frozen=True, slots=True)
class Backbone:
    """A frozen feature extractor.

    Args:
        network: In evaluation mode, float32; (B, 3, H, W) normalised to (B, D).
        preprocessing: What turns an image into the network's input.
        contract: What its features are comparable with.
    """

    network: nn.Module
    preprocessing: Preprocessing
    contract: FeatureContract


def find_preset(backbone: str, preprocess: str | None) -> Preprocessing:
    """Return a backbone's preprocessing by name, its default for None.

    Raises:
        ConfigError: There is no such backbone or preset.
    """
    presets = _family(backbone).presets
    if preprocess is None:
        return presets[0]
    for preset in presets:
        if preset.name == preprocess:
            return preset
    names = ", ".join(preset.name for preset in presets)
    raise ConfigError(f"Backbone {backbone} has the preprocessings {names}; got --preprocess {preprocess}.")


def _family(backbone: str) -> BackboneFamily:
    if backbone not in BACKBONES:
        raise ConfigError(f"Expected --backbone to be one of {', '.join(BACKBONES)}; got {backbone!r}.")
    return BACKBONES[backbone]


def resolve_weights(backbone: str, weights: str) -> str:
    """Turn ``auto`` into the URL of the published weights (or ``none``); return other values as they are.

    Raises:
        ConfigError: The backbone can't use such weights.
    """
    family = _family(backbone)
    if storage.is_signed(weights):  # it would show in process lists, and in Ray's dashboard
        raise ConfigError(
            f"Expected --weights without credentials, got some in {storage.redact(weights)}. Put them into the "
            "environment, or download the file and give its path."
        )
    seed = weights_file.random_seed(weights)
    if family.published_url is None:
        if weights not in ("auto", "none"):
            raise ConfigError(
                f"Backbone {backbone} has no weights; got --weights {storage.redact(weights)}. Leave --weights out."
            )
        return "none"
    if weights == "auto":
        return family.published_url()
    if seed is None and storage.scheme(weights) == "file":
        return storage.local_uri(storage.local_path(weights))
    return weights


def load_backbone(
    name: str,
    weights: str = "auto",
    preprocess: str | None = None,
    *,
    cache_dir: str | None = None,
    expected: FeatureContract | None = None,
) -> Backbone:
    """Load a backbone.

    Args:
        name: One of `BACKBONES`.
        weights: ``auto`` (the published file), ``random:SEED``, or the URI of a state dict.
        preprocess: Name of a preset; None for the backbone's default.
        cache_dir: Where remote weights are kept; None for the user's cache folder.
        expected: A contract that the loaded backbone must meet, for instance that of the table being written.

    Raises:
        ConfigError: Unknown name, preset or weights.
        WeightsError: The weights can't be had or don't fit.
        ContractMismatch: The result is not what ``expected`` says.
    """
    family, preset = _family(name), find_preset(name, preprocess)
    resolved = resolve_weights(name, weights)
    seed = weights_file.random_seed(resolved)
    if seed is not None:
        network = weights_file.build_random(family.build, seed)
    else:
        network = weights_file.build_random(family.build, 0)
        if family.published_url is not None:
            state = weights_file.load(resolved, cache_dir or storage.default_cache_dir())
            weights_file.load_strictly(network, state, storage.redact(resolved))
    network.eval().requires_grad_(False)
    contract = FeatureContract(
        backbone=name,
        weights_sha256=weights_file.tensors_sha256(network),
        preprocessing=preset.to_json(),
        embedding_dim=family.embedding_dim,
        weights="none" if resolved == "none" else storage.redact(resolved) if weights != "auto" else "auto",
    )
    if expected is not None:
        require_same_features(
            expected, contract, "What is being written", "Give the same --backbone, --weights and --preprocess."
        )
    return Backbone(network, preset, contract)
