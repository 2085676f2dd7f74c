"""Images/s of the network on a CUDA device, by precision and batch size: ``python -m benchmarks.gpu_model``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

import numpy as np
import torch

from pipeline.backbones import Backbone, load_backbone
from pipeline.engines.cuda import SIZES, CudaNetwork
from pipeline.engines.normalised import Normalised
from pipeline.engines.scaled import Scaled
from pipeline.engines.torch import TorchEngine, require_cuda
from pipeline.errors import ConfigError

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
#: Of the peers.
_PEER_BATCH_SIZE = 256


def on_device(backbone: Backbone, precision: str, seconds: float) -> dict[int, float]:
    """Return images/s by batch size, of pixels that lie on the device."""
    model = Scaled(backbone, _DTYPES[precision]).to(device="cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = CudaNetwork(model, backbone)
    return {size: network.images_per_s(size, seconds) for size in SIZES}


def with_copies(backbone: Backbone, precision: str, size: int, seconds: float) -> float:
    """Return images/s of the engine, from pixels in the host's memory to vectors there."""
    engine = TorchEngine(backbone, precision, size, 1, "cuda")
    side = backbone.preprocessing.crop
    pixels = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), np.uint8)
    batches: Iterator[Any] = engine.embed_batches(repeat(pixels))
    for _ in range(5):
        next(batches)
    return _rate(lambda: next(batches), size, seconds)


def by_autocast(backbone: Backbone, seconds: float) -> float:
    """Return images/s of the usual way: autocast to fp16, channels last, one batch after the other, copied as it is."""
    model = Normalised(backbone).to(device="cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = backbone.preprocessing.crop
    pixels = torch.randint(256, (_PEER_BATCH_SIZE, side, side, 3), dtype=torch.uint8)

    def embed() -> object:
        with torch.inference_mode(), torch.autocast("cuda", dtype=torch.float16):
            return model(pixels.to("cuda")).float().cpu()

    for _ in range(3):
        embed()
    return _rate(embed, _PEER_BATCH_SIZE, seconds)


def compiled(backbone: Backbone, seconds: float) -> tuple[float, float]:
    """Return images/s of torch.compile with CUDA graphs, pixels on the device, and the seconds it takes to compile."""
    model = Scaled(backbone, torch.float16).to(device="cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = backbone.preprocessing.crop
    pixels = torch.randint(256, (_PEER_BATCH_SIZE, side, side, 3), dtype=torch.uint8, device="cuda")
    network = torch.compile(model, mode="reduce-overhead")

    def embed() -> None:
        with torch.inference_mode():
            network(pixels)
        torch.cuda.synchronize()

    started = time.perf_counter()
    for _ in range(3):
        embed()
    return _rate(embed, _PEER_BATCH_SIZE, seconds), time.perf_counter() - started - seconds


def _rate(step: Callable[[], object], size: int, seconds: float) -> float:
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        count += size
    return count / (time.perf_counter() - started)


def main() -> None:
    """Print the rates as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure (default: 3)")
    asked = parser.parse_args()
    try:
        require_cuda()
    except ConfigError as error:
        raise SystemExit(f"No CUDA device: {error}") from None
    backbone = load_backbone("microsoftvision-resnet50", "random:0")
    device = {name: on_device(backbone, name, asked.seconds) for name in _DTYPES}
    host = {name: with_copies(backbone, name, max(r, key=r.__getitem__), asked.seconds) for name, r in device.items()}
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()},
        "on_device_images_per_s": device,
        "with_copies_images_per_s": host,
        "autocast_images_per_s": by_autocast(backbone, asked.seconds),
    }
    if importlib.util.find_spec("triton"):
        try:
            figures["compiled_images_per_s"], figures["compiling_s"] = compiled(backbone, asked.seconds)
        except Exception as error:  # it needs a C compiler and more; the other figures don't
            figures["compile_error"] = str(error)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
