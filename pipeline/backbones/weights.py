"""Weights: read without unpickling code, fitted strictly, and named by the SHA-256 of their tensors."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from pipeline import storage
from pipeline.backbones.fetch import DOWNLOAD_BACKOFF_S, fetch
from pipeline.errors import WeightsError

#: Batch norm's step counter: no feature depends on it, and old checkpoints lack it.
_COUNTER = "num_batches_tracked"


def build_random(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a network with its own initialisation at a seed, leaving the process's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def load(uri: str, cache_dir: str, backoff_s: tuple[float, ...] = DOWNLOAD_BACKOFF_S) -> dict[str, torch.Tensor]:
    """Return the tensors of a weights file, by way of the node's cache where it is remote.

    A server that gives no length, or a wrong one, can break off and nobody notices until the file is opened; so a copy
    that can't be read is downloaded once more, in this run or in the next.

    Raises:
        WeightsError: There is no such file, or none that can be read.
        WeightsUnavailable: It can't be downloaded now.
    """
    path = fetch(uri, cache_dir, backoff_s)
    try:
        return read_state_dict(path)
    except WeightsError:
        if storage.scheme(uri) == "file":
            raise
        return read_state_dict(fetch(uri, cache_dir, backoff_s, other_than=storage.file_sha256(path)))


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors from a safetensors or PyTorch file, without running any code that the file may hold.

    The tensors may stand under ``state_dict``, and every name may have the prefix ``module.`` of a parallel wrapper.

    Raises:
        WeightsError: The file is no such file, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"Expected a state dict of tensors in {path}, got a file that holds other Python objects or is damaged "
            f"({_first_line(error)}). Such a file could run code, so it is not loaded: save the model's "
            "state_dict() alone, best as .safetensors."
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # damaged files make PyTorch raise most built-in exceptions
        raise WeightsError(
            f"Expected weights in {path}, but the file can't be read: {_first_line(error)}. "
            "Check that it is complete, and that its suffix says what it is."
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise WeightsError(
            f"Expected a state dict (names to tensors, bare or under 'state_dict') in {path}, "
            f"got {_kind(content)}. Save the model's state_dict() alone."
        )
    prefix = "module." if all(str(key).startswith("module.") for key in content) else ""
    return {str(key).removeprefix(prefix): value for key, value in content.items()}


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _kind(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dict with the keys {', '.join(map(str, list(content)[:5])) or '(none)'}"
    return f"a {type(content).__name__}"


def load_strictly(network: nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    """Copy a state dict into a network; every tensor must be there, fit, and be asked for.

    Raises:
        WeightsError: A tensor is missing, unknown or of another shape.
    """
    expected = network.state_dict()
    missing = sorted(key for key in expected.keys() - state.keys() if not key.endswith(_COUNTER))
    unknown = sorted(state.keys() - expected.keys())
    misfits = sorted(
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in state.keys() & expected.keys()
        if state[key].shape != expected[key].shape
    )
    problems = [
        f"{len(names)} {what}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", misfits))
        if names
    ]
    if problems:
        raise WeightsError(
            f"The weights in {where} don't fit the network exactly ({'; '.join(problems)}). "
            "Expected exactly the feature extractor's tensors: remove the others, or use the right file."
        )
    network.load_state_dict({**{k: v for k, v in expected.items() if k.endswith(_COUNTER)}, **state}, strict=True)


def tensors_sha256(network: nn.Module) -> str:
    """Return a SHA-256 (hex) over names, types, shapes and values of a network's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.endswith(_COUNTER):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
