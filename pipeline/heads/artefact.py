"""A head: a standardised linear map, or several with leaky rectifiers between; saved as safetensors and JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pipeline import __version__, storage
from pipeline.contract import FeatureContract
from pipeline.errors import TableError
from pipeline.storage import StorageOptions

HEAD_FORMAT_VERSION = 1
#: Slope of the rectifier below zero; PyTorch's default of LeakyReLU.
LEAKY_SLOPE = 0.01
#: Rows that go through a head at once.
_CHUNK_ROWS = 4096

Probabilities = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Head:
    """A classifier on embeddings.

    Args:
        kind: ``logistic`` or ``mlp``.
        classes: K class names; an output's place is its class.
        contract: The features that it was trained on.
        mean: float32 of shape (D,), subtracted from the features.
        scale: float32 of shape (D,), divides them after that.
        layers: Weight of shape (out, in) and bias of shape (out,), float32, of each linear map.
        config: How it was trained, as plain JSON values.
        metrics: What it reached, by split.
    """

    kind: str
    classes: tuple[str, ...]
    contract: FeatureContract
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def probabilities(self, X: NDArray[np.float32]) -> Probabilities:
        """Classify features.

        Args:
            X: float32 of shape (N, D).

        Returns:
            float32 of shape (N, K), rows summing to 1.
        """
        parts = [self._probabilities(X[start : start + _CHUNK_ROWS]) for start in range(0, len(X), _CHUNK_ROWS)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.classes)), np.float32)

    def _probabilities(self, X: NDArray[np.float32]) -> Probabilities:
        hidden = (X.astype(np.float32, copy=False) - self.mean) / self.scale
        for place, (weight, bias) in enumerate(self.layers):
            if place:
                hidden = np.where(hidden > 0, hidden, LEAKY_SLOPE * hidden)
            hidden = hidden @ weight.T + bias
        exponents = np.exp(hidden - hidden.max(axis=1, keepdims=True))
        result: Probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        return result

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the tensors and the classes: what decides every prediction."""
        return hashlib.sha256(self._tensor_bytes() + json.dumps(self.classes).encode()).hexdigest()

    def _tensor_bytes(self) -> bytes:
        tensors = {"mean": self.mean, "scale": self.scale}
        for place, (weight, bias) in enumerate(self.layers):
            tensors[f"layers.{place}.weight"], tensors[f"layers.{place}.bias"] = weight, bias
        return bytes(save({name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}))


def standardisation(X: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of each feature, 1 where a feature is constant."""
    mean = X.mean(axis=0, dtype=np.float64)
    scale = X.std(axis=0, dtype=np.float64)
    # As scikit-learn's StandardScaler: a deviation of rounding errors is none.
    scale[scale <= 10 * np.finfo(np.float32).eps * np.abs(mean)] = 1.0
    scale[scale == 0] = 1.0
    return mean.astype(np.float32), scale.astype(np.float32)


def save_head(head: Head, uri: str, options: StorageOptions | None = None) -> None:
    """Write ``head.safetensors`` and ``head.json`` into a folder, in place of an older head's."""
    folder = storage.absolute(uri)
    store = storage.store_for(folder, options)
    tensors = head._tensor_bytes()
    description = {
        "format_version": HEAD_FORMAT_VERSION,
        "kind": head.kind,
        "classes": list(head.classes),
        "num_layers": len(head.layers),
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        "contract": head.contract.to_json(),
        "config": head.config,
        "metrics": head.metrics,
        "created_by": f"vision-embedding-pipeline {__version__}",
    }
    store.replace(f"{folder}/head.safetensors", tensors)
    store.replace(f"{folder}/head.json", (json.dumps(description, indent=2) + "\n").encode())


def load_head(uri: str, options: StorageOptions | None = None) -> Head:
    """Read what `save_head` wrote.

    Raises:
        TableError: There is no head, it is of another format, or its two files don't belong together.
    """
    folder = storage.absolute(uri)
    store = storage.store_for(folder, options)
    name = f"{folder}/head.json"
    if store.info(name) is None:
        raise TableError(f"Expected a head at {folder}, but it has no head.json. Check the path, or run jobs.train.")
    try:
        description = json.loads(store.read_bytes(name, 2**28))
        if not isinstance(description, dict):
            raise ValueError(f"head.json holds a {type(description).__name__} instead of an object")
        if description["format_version"] != HEAD_FORMAT_VERSION:
            raise TableError(
                f"Expected head format {HEAD_FORMAT_VERSION} in {name}, got {description['format_version']!r}. "
                "Use the version of this package that wrote it."
            )
        data = store.read_bytes(f"{folder}/head.safetensors", 2**34)
        if hashlib.sha256(data).hexdigest() != description["tensors_sha256"]:
            raise TableError(f"head.safetensors in {folder} is not the file that head.json describes. Train again.")
        tensors = load(data)
        layers = tuple(
            (tensors[f"layers.{place}.weight"], tensors[f"layers.{place}.bias"])
            for place in range(description["num_layers"])
        )
        contract = FeatureContract.from_json(description["contract"], name)
        classes: Sequence[str] = description["classes"]
        mean, scale = tensors["mean"], tensors["scale"]
        kind, config, metrics = (description[key] for key in ("kind", "config", "metrics"))
        return Head(kind, tuple(classes), contract, mean, scale, layers, config, metrics)
    except (KeyError, TypeError, ValueError, FileNotFoundError, SafetensorError) as error:
        raise TableError(
            f"The head at {folder} can't be read ({type(error).__name__}: {error}): it is incomplete or damaged. "
            "Train it again."
        ) from None
