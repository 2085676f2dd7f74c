"""The formats of a program: how each is written, and executed again to be compared."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.engines.openvino import openvino_core
from pipeline.errors import ConfigError
from pipeline.export.options import ProgramFormat
from pipeline.heads.models import Floats
from pipeline.images import Pixels

INPUT, OUTPUTS = "pixels", ("probabilities", "embeddings")
#: Takes uint8 of shape (B, H, W, 3); returns probabilities, float32 of shape (B, K), and embeddings, of (B, D).
Run = Callable[[Pixels], tuple[Floats, Floats]]

#: An ONNX file is one message of protobuf, which can't be longer; some is left for the graph.
_MOST_ONNX_BYTES = 2**31 - 2**24


def require_writer(program_format: ProgramFormat) -> None:
    """Refuse a format that can't be written here.

    Raises:
        ConfigError: Its packages aren't installed.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if program_format == "onnx" and missing:
        raise ConfigError(
            f"--format onnx needs {' and '.join(missing)}: pip install 'vision-embedding-pipeline[onnx]'. Or use "
            "--format torch-export, which needs PyTorch alone."
        )


def write_program(program: nn.Module, side: int, path: Path, program_format: ProgramFormat) -> None:
    """Export a program for batches of any size.

    Args:
        program: What to export; its forward takes ``pixels``.
        side: Height and width of its images (pixels).
        path: Where to write it, as one file.
        program_format: In which format.

    Raises:
        ConfigError: It is too large for the format.
    """
    num_bytes = sum(tensor.nbytes for tensor in program.state_dict().values())
    if program_format == "onnx" and num_bytes > _MOST_ONNX_BYTES:
        raise ConfigError(
            f"An ONNX file holds at most 2 GiB; this program has {num_bytes / 2**30:.1f} GiB of weights and training "
            "vectors. Use --format torch-export, or a head of another kind than knn."
        )
    with _quiet(), torch.no_grad():
        example = torch.zeros(2, side, side, 3, dtype=torch.uint8)  # of 1, PyTorch would take the size for a constant
        shapes = {INPUT: {0: torch.export.Dim("batch", min=1)}}
        exported = torch.export.export(program, (example,), dynamic_shapes=shapes)
        if program_format == "torch-export":
            torch.export.save(exported, path)
            return
        names = {"input_names": [INPUT], "output_names": list(OUTPUTS)}
        torch.onnx.export(exported, (), path, dynamo=True, external_data=False, verbose=False, **names)  # type: ignore[arg-type]


def open_program(path: Path, program_format: ProgramFormat) -> tuple[Run, str]:
    """Return what executes a program on this CPU, and what that is.

    An ONNX file is executed by ONNX Runtime where that is installed, else by OpenVINO.
    """
    if program_format == "torch-export":
        with _quiet():
            module = torch.export.load(path).module()
        return lambda pixels: _run_torch(module, pixels), f"torch {torch.__version__}"
    if importlib.util.find_spec("onnxruntime") is None:
        compiled = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda pixels: _run_openvino(compiled, pixels), f"openvino {version('openvino')}"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda pixels: tuple(session.run(list(OUTPUTS), {INPUT: pixels})), f"onnxruntime {version('onnxruntime')}"


def _run_torch(module: nn.Module, pixels: Pixels) -> tuple[Floats, Floats]:
    with torch.inference_mode():
        probabilities, embeddings = module(torch.from_numpy(pixels))
    return probabilities.numpy(), embeddings.numpy()


def _run_openvino(compiled: Any, pixels: Pixels) -> tuple[Floats, Floats]:
    results = compiled([pixels])
    probabilities, embeddings = (np.array(results[name]) for name in OUTPUTS)
    return probabilities, embeddings


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch from warning of its own deprecations, and of packages that it would know, too."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
