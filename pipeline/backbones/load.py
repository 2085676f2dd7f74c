"""Load a backbone by name: network, weights, preprocessing, and the contract that they make."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, NoReturn

from pipeline import storage
from pipeline.backbones.family import BackboneFamily
from pipeline.backbones.known import KnownWeights
from pipeline.backbones.microsoftvision import MICROSOFTVISION_RESNET50
from pipeline.backbones.pixels import PIXELS
from pipeline.backbones.quantised import expected_files, quantised_network, require_backbone
from pipeline.contract import FeatureContract, require_same_features
from pipeline.errors import ConfigError
from pipeline.preprocessing import Preprocessing
from pipeline.quantised import NetworkFiles
from pipeline.storage import StorageOptions

if TYPE_CHECKING:
    from torch import nn

BACKBONES: dict[str, BackboneFamily] = {family.name: family for family in (MICROSOFTVISION_RESNET50, PIXELS)}


class Backbone:
    """A frozen feature extractor.

    Args:
        preprocessing: What turns an image into the network's input.
        contract: What its features are comparable with.
        load: Gives the network.
        load_quantised: Gives the files of the quantised network, where the contract's is one.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        contract: FeatureContract,
        load: Callable[[], nn.Module],
        load_quantised: Callable[[], NetworkFiles] | None = None,
    ) -> None:
        self.preprocessing, self.contract = preprocessing, contract
        self._load, self._load_quantised = load, load_quantised

    @classmethod
    def of_quantised(
        cls, preprocessing: Preprocessing, contract: FeatureContract, load: Callable[[], NetworkFiles]
    ) -> Backbone:
        """Return one whose network is quantised, so that PyTorch has nothing to execute."""

        def refuse() -> NoReturn:
            raise ConfigError(
                f"The network of {contract.describe()} is quantised, which OpenVINO alone executes. Use --engine "
                "openvino."
            )

        return cls(preprocessing, contract, refuse, load)

    @cached_property
    def network(self) -> nn.Module:
        """The network, in evaluation mode, float32: (B, 3, H, W), normalised, to (B, D).

        Raises:
            WeightsError: Its weights can't be had or don't fit.
            ContractMismatch: They are not those that the contract names.
        """
        return self._load()

    @property
    def quantised_files(self) -> NetworkFiles | None:
        """The files of the quantised network; None where the network is one of floats.

        Raises:
            WeightsError: They can't be had, or are damaged.
            ContractMismatch: They are not those that the contract names.
        """
        return None if self._load_quantised is None else self._load_quantised()


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
    """Return weights as every node understands them: paths absolute, ``none`` where the network has none.

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
        if seed is not None:
            raise _no_weights(backbone, weights)
        if weights == "auto":
            return "none"
    if _is_file(weights) and storage.scheme(weights) == "file":
        return storage.local_uri(storage.local_path(weights))
    return weights


def _is_file(weights: str) -> bool:
    return weights not in ("auto", "none") and random_seed(weights) is None


def _no_weights(backbone: str, weights: str) -> ConfigError:
    return ConfigError(
        f"Backbone {backbone} has no weights; got --weights {storage.redact(weights)}. Leave --weights out."
    )


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
    storage_options: StorageOptions | None = None,
) -> Backbone:
    """Load a backbone.

    Args:
        name: One of `BACKBONES`.
        weights: ``auto`` (the published file), ``random:SEED``, or the URI of a state dict or a quantised network.
        preprocess: Name of a preset; None for the backbone's default.
        cache_dir: Where remote weights are kept, and what is known of weights; None: nothing is noted of them, and
            remote ones are kept in the user's cache folder.
        expected: The contract that it has, for instance that of the table being written. Then the network is loaded,
            and held against it, when it is needed, and not before.
        storage_options: Of the object store that holds a quantised network, see `pipeline.storage.store_for`.

    Raises:
        ConfigError: Unknown name, preset or weights.
        WeightsError: The weights can't be had or don't fit.
    """
    family, preset = _family(name), find_preset(name, preprocess)
    resolved = resolve_weights(name, weights)
    cache = cache_dir or storage.default_cache_dir()
    if expected is not None and expected.quantisation is not None:
        read = partial(expected_files, resolved, cache, storage_options, expected)
        return Backbone.of_quantised(preset, expected, read)
    if expected is None and _is_file(resolved):
        quantised = quantised_network(resolved, cache, storage_options)
        if quantised is not None:
            require_backbone(quantised.contract, family, preset)
            files = quantised.files
            return Backbone.of_quantised(preset, quantised.contract, lambda: files)
    if family.published_url is None and resolved != "none":
        raise _no_weights(name, weights)
    load = partial(_load_network, family, resolved, cache)
    contract = partial(_contract, family, preset, resolved)
    if expected is not None:
        advice = "Give the same --backbone, --weights and --preprocess."
        return Backbone(preset, expected, partial(_load_expected, load, contract, expected, advice))
    known = None if cache_dir is None else KnownWeights(family, resolved, cache_dir)
    noted = None if known is None else known.sha256()
    if known is not None and noted is not None:
        advice = f"Remove {known.path}, and run again."
        return Backbone(preset, contract(noted), partial(_load_expected, load, contract, contract(noted), advice))
    network, sha256 = load()
    if known is not None:
        known.note(sha256)
    return Backbone(preset, contract(sha256), lambda: network)


def _contract(family: BackboneFamily, preset: Preprocessing, weights: str, weights_sha256: str) -> FeatureContract:
    dim, shown = family.embedding_dim, storage.redact(weights)
    return FeatureContract(family.name, weights_sha256, preset.to_json(), dim, shown)


def _load_expected(
    load: Callable[[], tuple[nn.Module, str]],
    contract: Callable[[str], FeatureContract],
    expected: FeatureContract,
    advice: str,
) -> nn.Module:
    network, sha256 = load()
    require_same_features(expected, contract(sha256), "What is being written", advice)
    return network


def _load_network(family: BackboneFamily, weights: str, cache_dir: str) -> tuple[nn.Module, str]:
    """Return the network, and the SHA-256 (hex) of its tensors."""
    from pipeline.backbones import weights as weights_file  # imports PyTorch

    seed = random_seed(weights)
    network = weights_file.build_random(family.build, seed or 0)
    if weights == "auto" and family.published_url is not None:
        weights = family.published_url()
    if seed is None and weights != "none":
        weights_file.load_strictly(network, weights_file.load(weights, cache_dir), storage.redact(weights))
    return network.eval().requires_grad_(False), weights_file.tensors_sha256(network)
