"""Choose and load an engine."""

from __future__ import annotations

import glob
import os
import sys

from pipeline.backbones import Backbone
from pipeline.choices import Decoder, Device, EngineName, Precision
from pipeline.contract import FeatureContract
from pipeline.engines.base import Engine, FileEngine
from pipeline.engines.openvino import OpenVINOEngine, choose_precision, openvino_core
from pipeline.errors import ConfigError
from pipeline.images import Limits

#: What Linux calls devices that may be PyTorch's CUDA: NVIDIA's cards and Jetsons, a Windows host's, AMD's.
_GPU_DEVICES = ("/dev/nvidia*", "/dev/nvmap", "/dev/dxg", "/dev/kfd")


def choose_engine(engine: EngineName, device: Device, cuda: bool) -> tuple[EngineName, Device]:
    """Turn ``auto`` into an engine and a device: torch where there is CUDA, OpenVINO elsewhere.

    Args:
        engine: ``auto``, ``openvino`` or ``torch``.
        device: ``auto``, ``cpu`` or ``cuda``.
        cuda: Whether there is a CUDA device where the network will run.

    Raises:
        ConfigError: OpenVINO was asked for on CUDA.
    """
    if engine == "openvino" and device == "cuda":
        raise ConfigError("Engine openvino runs on the CPU only; got --device cuda. Use --engine torch for CUDA.")
    if device == "auto":
        device = "cuda" if cuda and engine != "openvino" else "cpu"
    if engine == "auto":
        engine = "torch" if device == "cuda" else "openvino"
    return engine, device


def cuda_here() -> bool:
    """Return whether PyTorch can use a CUDA device on this machine; a GPU alone is not enough for a CPU build.

    Where Linux has no device that could be one, PyTorch, which takes seconds to import, isn't asked.
    """
    if sys.platform == "linux" and not any(glob.glob(pattern) for pattern in _GPU_DEVICES):
        return False
    import torch

    return torch.cuda.is_available()


def require_here(engine: EngineName, precision: Precision, device: Device, decode: Decoder = "cpu") -> None:
    """Refuse at once what this machine can't do, before anything is written.

    Raises:
        ConfigError: It has no such device or precision.
    """
    engine, device = choose_engine(engine, device, cuda_here())
    if device == "cuda":
        from pipeline.engines.torch import require_cuda

        require_cuda()
    if decode == "gpu" and device == "cuda":
        from pipeline.engines.files import nvjpeg

        nvjpeg()
    if engine == "openvino" and precision not in ("auto", "fp32"):
        choose_precision(openvino_core(), precision)


def suited(
    contract: FeatureContract, engine: EngineName, precision: Precision, device: Device
) -> tuple[EngineName, Precision, Device]:
    """Return engine, precision and device for a network: as given, but of a quantised one the only ones that it has.

    Args:
        contract: The features that it gives.
        engine: As asked for, as the rest.
        precision: Of a quantised network, ``auto`` or ``int8``.
        device: Of a quantised network, ``auto`` or ``cpu``.

    Raises:
        ConfigError: The network can't be executed so without giving other features.
    """
    if contract.quantisation is None:
        if precision == "int8":
            raise ConfigError(
                f"Asked for --precision int8, but the features of {contract.describe()} are those of a network of "
                "floats. Leave --precision out; jobs.embed quantises a network for a new --table."
            )
        return engine, precision, device
    if precision not in ("auto", "int8"):
        raise ConfigError(
            f"Asked for --precision {precision}, but {contract.describe()} is a quantised network, which gives its "
            "features in int8 only. Leave --precision out; for the features of its float network use another --table."
        )
    require_cpu_engine(engine, device)
    return "openvino", "int8", "cpu"


def require_cpu_engine(engine: EngineName, device: Device) -> None:
    """Refuse to go on in int8 with what doesn't execute it.

    Raises:
        ConfigError: Another engine than OpenVINO, or a GPU, was asked for.
    """
    if engine == "torch" or device == "cuda":
        asked = "--engine torch" if engine == "torch" else "--device cuda"
        raise ConfigError(f"Networks quantised to int8 run with --engine openvino on the CPU only; got {asked}.")


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_engine(
    backbone: Backbone,
    engine: EngineName = "auto",
    precision: Precision = "auto",
    *,
    batch_size: int | None = None,
    device: Device = "auto",
    num_threads: int | None = None,
    cache_dir: str | None = None,
) -> Engine:
    """Make a backbone ready to execute here.

    Args:
        backbone: What to execute.
        engine: What executes it; ``auto`` is torch on CUDA, OpenVINO on a CPU.
        precision: ``auto`` is fp16 on CUDA, bf16 in OpenVINO where the processor has it, fp32 elsewhere; of a quantised
            network int8.
        batch_size: Images in one call; None for the engine's default.
        device: Where; ``auto`` is CUDA where there is any.
        num_threads: CPU threads; None for all cores that this process may use.
        cache_dir: Folder where converted networks, and what was found out about the device, are kept for the next time;
            None: nowhere.

    Raises:
        ConfigError: This machine can't do what was asked for.
        WeightsError: The network was needed, and its weights can't be had.
    """
    engine, precision, device = suited(backbone.contract, engine, precision, device)
    engine_name, device_name = choose_engine(engine, device, device == "auto" and cuda_here())
    threads = num_threads or available_cores()
    if engine_name == "openvino":
        return OpenVINOEngine(backbone, precision, batch_size, threads, cache_dir)
    from pipeline.engines.torch import TorchEngine

    return TorchEngine(backbone, precision, batch_size, threads, device_name, cache_dir)


def load_file_engine(engine: Engine, backbone: Backbone, limits: Limits) -> FileEngine:
    """Have an engine on CUDA decode images, too.

    Args:
        engine: What `load_engine` returned.
        backbone: What it executes.
        limits: What a single image may cost.

    Raises:
        ConfigError: The engine is no such engine, there is no decoder, or it can't do this backbone's preprocessing.
    """
    from pipeline.engines.files import TorchFileEngine, nvjpeg
    from pipeline.engines.torch import TorchEngine

    if not isinstance(engine, TorchEngine) or engine.device != "cuda":
        raise ConfigError(f"Asked for --decode gpu, but the backbone runs on {engine.info.device}. Use --decode cpu.")
    return TorchFileEngine(engine, backbone.preprocessing, limits, nvjpeg())
