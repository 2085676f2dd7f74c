"""The file of a quantised network: OpenVINO's format (IR) as two tensors, and what the network was made of.

To read one takes neither PyTorch nor the toolkit that quantised it, and nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from pipeline.contract import FeatureContract
from pipeline.errors import TableError, WeightsError

#: The two files of OpenVINO's format: ``structure`` and ``constants``, each uint8 of shape (bytes,).
NetworkFiles = Mapping[str, NDArray[np.uint8]]

_NAMES = ("structure", "constants")
#: Key of the file's metadata under which all that is said of the network stands, as JSON.
_KEY = "vep"


@dataclass(frozen=True, slots=True)
class QuantisedNetwork:
    """A network of 8-bit numbers.

    Args:
        contract: Its features; ``weights_sha256`` is that of `files`.
        files: What OpenVINO reads.
        report: How near its features are to the float network's, and how it was made, as plain JSON values.
    """

    contract: FeatureContract
    files: NetworkFiles
    report: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """Return the file; where it lies isn't part of it."""
        about = {"contract": replace(self.contract, weights="").to_json(), "report": dict(self.report)}
        tensors = {name: np.asarray(self.files[name]) for name in _NAMES}
        return bytes(save(tensors, metadata={_KEY: json.dumps(about, sort_keys=True)}))


def files_sha256(files: NetworkFiles) -> str:
    """Return a SHA-256 (hex) over the two files of a network."""
    digest = hashlib.sha256()
    for name in _NAMES:
        digest.update(f"{name}:{files[name].size};".encode())
        digest.update(files[name].tobytes())
    return digest.hexdigest()


def is_quantised(path: Path) -> bool:
    """Return whether a file says that it holds a quantised network; only its header is read."""
    try:
        with safe_open(path, framework="numpy") as file:
            return _KEY in (file.metadata() or {})
    except (OSError, SafetensorError):  # whoever reads it as weights says what is wrong with it
        return False


def parse_network(data: bytes, where: str) -> QuantisedNetwork:
    """Read what `QuantisedNetwork.to_bytes` made.

    Args:
        data: The file.
        where: Its URI.

    Raises:
        WeightsError: It is another file, or damaged.
    """
    try:
        length = int.from_bytes(data[:8], "little")  # https://github.com/huggingface/safetensors#format
        about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
        tensors = load(data)
        files = {name: tensors[name] for name in _NAMES}
        contract = replace(FeatureContract.from_json(about["contract"], where), weights=where)
        report = dict(about["report"])
    except (SafetensorError, KeyError, TypeError, ValueError, TableError) as error:
        raise WeightsError(
            f"Expected a quantised network in {where}, but it can't be read ({type(error).__name__}: {error}). "
            "Restore the file; it can't be made again bit by bit."
        ) from None
    if contract.quantisation is None or files_sha256(files) != contract.weights_sha256:
        raise WeightsError(
            f"The quantised network in {where} is not the one that its own description names "
            f"({contract.weights_sha256[:12]}…): the file was damaged or edited. Restore it."
        )
    return QuantisedNetwork(contract, files, report)
