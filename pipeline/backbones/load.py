"""Load a backbone by name: network, weights, preprocessing, and the contract that they make."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline import storage
from pipeline.backbones.family import BackboneFamily
from pipeline.backbones.microsoftvision import MICROSOFTVISION_RESNET50
from pipeline.backbones.pixels import PIXELS
from pipeline.contract import FeatureContract, require_same_features
from pipeline.errors import ConfigError
from pipeline.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn

BACKBONES: dict[str, BackboneFamily] = {family.name: family for family in (MICROSOFTVISION_RESNET50, PIXELS)}


class Backbone:
    """A frozen feature extractor.

    Args:
        preprocessing: What turns an image into the network's input.
        contract: What its features are comparable with.
        load: Gives the network.
    """

    def __init__(self, preprocessing: Preprocessing, contract: FeatureContract, load: Callable[[], nn.Module]) -> None:
        self.preprocessing, self.contract, self._load = preprocessing, contract, load

    @cached_property
    def network(self) -> nn.Module:
        """The network, in evaluation mode, float32: (B, 3, H, W), normalised, to (B, D).

        Raises:
            WeightsError: Its weights can't be had or don't fit.
            ContractMismatch: They are not those that the contract names.
        """
        return self._load()


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
    seed = random_seed(weights)
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


def random_seed(weights: str) -> int | None:
    """Return N of ``random:N``, None for any other weights.

    Raises:
        ConfigError: What follows ``random:`` is no whole number.
    """
    head, separator, seed = weights.partition(":")
    if head != "random" or not separator:
        return None
    if not seed.isdecimal() or int(seed) >= 2**32:
        raise ConfigError(f"Expected --weights random:SEED with a seed of 0 to 4294967295, got {weights!r}.")
    return int(seed)


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
        expected: The contract that it has, for instance that of the table being written. Then the network is loaded,
            and held against it, when it is needed, and not before.

    Raises:
        ConfigError: Unknown name, preset or weights.
        WeightsError: The weights can't be had or don't fit.
    """
    family, preset = _family(name), find_preset(name, preprocess)
    resolved = resolve_weights(name, weights)

    def contract_of(network: nn.Module) -> FeatureContract:
        from pipeline.backbones.weights import tensors_sha256

        return FeatureContract(
            backbone=name,
            weights_sha256=tensors_sha256(network),
            preprocessing=preset.to_json(),
            embedding_dim=family.embedding_dim,
            weights="none" if resolved == "none" else storage.redact(resolved) if weights != "auto" else "auto",
        )

    def load() -> nn.Module:
        network = _load_network(family, resolved, cache_dir or storage.default_cache_dir())
        if expected is not None:
            advice = "Give the same --backbone, --weights and --preprocess."
            require_same_features(expected, contract_of(network), "What is being written", advice)
        return network

    if expected is not None:
        return Backbone(preset, expected, load)
    network = load()
    return Backbone(preset, contract_of(network), lambda: network)


def _load_network(family: BackboneFamily, weights: str, cache_dir: str) -> nn.Module:
    from pipeline.backbones import weights as weights_file  # imports PyTorch

    seed = random_seed(weights)
    network = weights_file.build_random(family.build, seed or 0)
    if seed is None and family.published_url is not None:
        weights_file.load_strictly(network, weights_file.load(weights, cache_dir), storage.redact(weights))
    return network.eval().requires_grad_(False)
