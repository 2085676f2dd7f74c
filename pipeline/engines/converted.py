"""Networks converted for OpenVINO, and kept: to convert one takes PyTorch and seconds, to read one back a tenth of one.

A file of the cache holds the two files of OpenVINO's own format (IR) as two tensors, and is named by what went into it:
the contract, which names the weights by their SHA-256, and OpenVINO's version.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from pipeline import storage
from pipeline.backbones import Backbone
from pipeline.contract import FeatureContract
from pipeline.quantised import NetworkFiles

logger = logging.getLogger(__name__)

#: To be raised whenever the conversion changes.
_FORM = 1


def converted(openvino: Any, backbone: Backbone, cache_dir: str | None) -> Any:
    """Return a backbone's network as OpenVINO's: uint8 of shape (B, H, W, 3), B open, to float32 of shape (B, D).

    Args:
        openvino: The module.
        backbone: What to convert; its network is loaded only where the cache has none. A quantised one is read.
        cache_dir: Folder of the cache; None: convert, and keep nothing.

    Raises:
        WeightsError: The network was needed, and its weights can't be had.
        ContractMismatch: The weights are others than the contract says.
    """
    files = backbone.quantised_files
    if files is not None:
        return read_model(openvino, files)
    if cache_dir is None:
        return _convert(openvino, backbone, None)
    path = Path(cache_dir).expanduser() / "networks" / _name(openvino, backbone.contract)
    with locked(path):
        kept = _kept(path)
        return _convert(openvino, backbone, path) if kept is None else read_model(openvino, kept)


def _name(openvino: Any, contract: FeatureContract) -> str:
    version = openvino.__version__.partition("-")[0]
    return f"{contract.backbone}-{contract.digest[:32]}-openvino-{version}-{_FORM}.safetensors"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep the node's other processes from making the same network at the same time, where that can be done."""
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock"))
        except (OSError, NotImplementedError) as error:
            logger.warning("%s", storage.explained(error, f"Converted networks can't be kept in {path.parent}"))
        yield


def _kept(path: Path) -> dict[str, NDArray[np.uint8]] | None:
    try:
        return load_file(path) if storage.kept_sha256(path) else None
    except OSError as error:
        logger.warning("%s", storage.explained(error, "The converted network can't be read back"))
        return None


def _convert(openvino: Any, backbone: Backbone, path: Path | None) -> Any:
    """Convert a network, and keep the result at a path.

    What is returned has been written and read as well, since writing folds constants: so the first run gives the last
    bits that the later ones give.
    """
    import torch

    from pipeline.engines.normalised import Normalised

    side = backbone.preprocessing.crop
    example = torch.zeros((1, side, side, 3), dtype=torch.uint8)  # tracing runs it, so one image, not a batch
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.trace, by which OpenVINO reads networks
        model = openvino.convert_model(Normalised(backbone), example_input=example, input=[(-1, side, side, 3)])
    try:
        network = written_model(openvino, model)
        model = read_model(openvino, network)
        if path is not None:
            storage.clear_unfinished(path)
            storage.LocalStore().replace(str(path), save(network))
            storage.note_sha256(path)
    except (OSError, RuntimeError) as error:  # it saves time, and must never be why a run fails
        logger.warning("%s", storage.explained(error, "The converted network can't be kept"))
    return model


def written_model(openvino: Any, model: Any) -> dict[str, NDArray[np.uint8]]:
    """Return a model as the two files that OpenVINO writes."""
    with tempfile.TemporaryDirectory(prefix="vep-") as folder:  # OpenVINO writes to paths only
        structure = Path(folder, "network.xml")
        openvino.save_model(model, structure, compress_to_fp16=False)
        files = {"structure": structure, "constants": structure.with_suffix(".bin")}
        return {name: np.fromfile(file, np.uint8) for name, file in files.items()}


def read_model(openvino: Any, network: NetworkFiles) -> Any:
    """Return the model that `written_model` wrote."""
    return openvino.Core().read_model(network["structure"].tobytes(), network["constants"].tobytes())
