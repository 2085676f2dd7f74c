"""A head: a model with its classes, contract and calibration; saved as safetensors and JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pipeline import __version__, storage
from pipeline.contract import FeatureContract
from pipeline.errors import TableError
from pipeline.heads.kinds import HeadKind
from pipeline.heads.models import Floats, Layers, Model
from pipeline.heads.neighbours import Neighbours
from pipeline.storage import StorageOptions

HEAD_FORMAT_VERSION = 2
#: Rows that go through a head at once.
_CHUNK_ROWS = 4096
#: Levels of head.json whose values have lines of their own: metrics, split, per_class, class.
_INDENTED_LEVELS = 4


@dataclass(frozen=True, slots=True)
class Head:
    """A classifier on embeddings.

    Args:
        kind: How it was trained.
        classes: K class names; a score's place is its class.
        contract: The features that it was trained on.
        model: What computes the scores.
        temperature: Divides the scores before the softmax, so that probabilities are what they say (calibration).
        config: How it was trained, as plain JSON values.
        metrics: What it reached, by split.
    """

    kind: HeadKind
    classes: tuple[str, ...]
    contract: FeatureContract
    model: Model
    temperature: float = 1.0
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def scores(self, X: NDArray[np.floating[Any]]) -> Floats:
        """Score features, before the temperature.

        Args:
            X: float32 or float16 of shape (N, D).

        Returns:
            float32 of shape (N, K).
        """
        parts = [
            self.model.scores(X[start : start + _CHUNK_ROWS].astype(np.float32, copy=False))
            for start in range(0, len(X), _CHUNK_ROWS)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.classes)), np.float32)

    def probabilities(self, X: NDArray[np.floating[Any]]) -> Floats:
        """Classify features.

        Args:
            X: float32 or float16 of shape (N, D).

        Returns:
            float32 of shape (N, K), rows summing to 1.
        """
        return softmax(self.scores(X) / np.float32(self.temperature))

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the tensors, the temperature and the classes: what decides every prediction."""
        rest = json.dumps([self.classes, self.temperature]).encode()
        return hashlib.sha256(self._tensor_bytes() + rest).hexdigest()

    def _tensor_bytes(self) -> bytes:
        return bytes(save({name: np.ascontiguousarray(value) for name, value in self.model.tensors().items()}))


def softmax(scores: Floats) -> Floats:
    """Return probabilities: float32 of shape (N, K), rows summing to 1."""
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Floats = exponents / exponents.sum(axis=1, keepdims=True)
    return result


def save_head(head: Head, uri: str, options: StorageOptions | None = None) -> None:
    """Write ``head.safetensors`` and ``head.json`` into a folder, in place of an older head's."""
    folder = storage.absolute(uri)
    store = storage.store_for(folder, options)
    tensors = head._tensor_bytes()
    description = {
        "format_version": HEAD_FORMAT_VERSION,
        "kind": head.kind,
        "classes": list(head.classes),
        "temperature": head.temperature,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        "contract": head.contract.to_json(),
        "config": head.config,
        "metrics": head.metrics,
        "created_by": f"vision-embedding-pipeline {__version__}",
    }
    store.replace(f"{folder}/head.safetensors", tensors)
    store.replace(f"{folder}/head.json", (_indented(description) + "\n").encode())


def _indented(value: Any, depth: int = 0) -> str:
    """Return JSON with a line for each value; for each class, of which there may be thousands, just one."""
    if not isinstance(value, dict) or not value or depth == _INDENTED_LEVELS:
        return json.dumps(value)
    space = "  " * depth
    lines = (f"{space}  {json.dumps(key)}: {_indented(item, depth + 1)}" for key, item in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{space}}}"


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
                "Use the version of this package that wrote it, or train again: it takes seconds."
            )
        data = store.read_bytes(f"{folder}/head.safetensors")
        if hashlib.sha256(data).hexdigest() != description["tensors_sha256"]:
            raise TableError(f"head.safetensors in {folder} is not the file that head.json describes. Train again.")
        contract = FeatureContract.from_json(description["contract"], name)
        kind = description["kind"]
        if kind not in get_args(HeadKind):
            raise ValueError(f"kind {kind!r} is not one of {', '.join(get_args(HeadKind))}")
        model: Model = (Neighbours if kind == "knn" else Layers).from_tensors(load(data))
        if model.shape != (contract.embedding_dim, len(description["classes"])):
            raise ValueError(f"head.safetensors is of {model.shape[0]} features and {model.shape[1]} classes")
        temperature, config, metrics = (description[key] for key in ("temperature", "config", "metrics"))
        return Head(kind, tuple(description["classes"]), contract, model, float(temperature), config, metrics)
    except (KeyError, TypeError, ValueError, FileNotFoundError, SafetensorError) as error:
        raise TableError(
            f"The head at {folder} can't be read ({type(error).__name__}: {error}): it is incomplete or damaged. "
            "Train it again."
        ) from None
