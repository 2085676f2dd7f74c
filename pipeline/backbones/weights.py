"""Weights: found, fetched once a node, read without unpickling code, fitted strictly, and named by their SHA-256."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import nn

from pipeline import storage
from pipeline.errors import ConfigError, WeightsError, WeightsUnavailable
from pipeline.failures import Seam, Verdict, find

#: Waits in seconds between the attempts to download weights.
DOWNLOAD_BACKOFF_S = (1.0, 4.0, 16.0)
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


def fetch(
    uri: str, cache_dir: str, backoff_s: tuple[float, ...] = DOWNLOAD_BACKOFF_S, other_than: str | None = None
) -> Path:
    """Return a local path of the weights: a local file itself, a remote one by way of the node's cache.

    One process a node downloads, under a lock and to a temporary name; the others wait and use its copy. The file's
    SHA-256 is kept beside it, so a copy that was damaged later is found and fetched again.

    Args:
        uri: Where they are.
        cache_dir: Folder of the cache.
        backoff_s: Waits (seconds) between attempts to download.
        other_than: SHA-256 (hex) of a copy that is of no use; another one that is there by now is taken.

    Raises:
        WeightsError: There is no such file.
        WeightsUnavailable: It can't be downloaded now.
    """
    if storage.scheme(uri) == "file":
        path = Path(storage.local_path(uri))
        if not path.is_file():
            raise WeightsError(f"Expected a weights file at {path}, found none. Check --weights.")
        return path
    name = storage.redact(uri).rsplit("/", 1)[-1] or "weights"
    target = Path(cache_dir).expanduser() / "weights" / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}-{name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if storage.kept_sha256(target) not in (None, other_than):
            return target
        storage.clear_unfinished(target)
        _download(uri, target, backoff_s)
        storage.note_sha256(target)
    return target


def _download(uri: str, target: Path, backoff_s: tuple[float, ...]) -> None:
    for attempt, wait_s in enumerate((*backoff_s, None), start=1):
        try:
            storage.download(uri, target)
            return
        except ConfigError:
            raise
        except Exception as error:  # fsspec's back ends raise their own trees
            verdict = find(error, Seam.WEIGHTS).verdict
            if wait_s is not None and verdict is Verdict.RETRY:
                time.sleep(wait_s)
                continue
            kind = WeightsError if verdict is Verdict.FATAL else WeightsUnavailable
            what = f"they can't be downloaded after {attempt} attempt(s)"
            raise kind(
                f"Expected weights at {storage.redact(uri)}, but {storage.explained(error, what).rstrip('.')}. Give a "
                "copy with --weights PATH "
                "(.safetensors, .pt, .pth or .tar; local, s3://, gs://, az:// or https://), or try the pipeline "
                "without trained weights with --weights random:0."
            ) from None


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
