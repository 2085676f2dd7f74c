"""PyTorch on a CPU or a CUDA device."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from pipeline.backbones import Backbone
from pipeline.engines.base import Embeddings, EngineInfo
from pipeline.engines.normalised import Normalised
from pipeline.errors import ConfigError
from pipeline.images import Pixels

logger = logging.getLogger(__name__)

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: Images a call. On CUDA large enough to fill a data-centre GPU with ResNet-50; halved where memory doesn't suffice.
DEFAULT_BATCH_SIZE = {"cpu": 16, "cuda": 256}


def require_cuda() -> None:
    """Refuse to go on without a CUDA device that PyTorch can use.

    Raises:
        ConfigError: There is none here.
    """
    if not torch.cuda.is_available():
        raise ConfigError(
            f"Asked for --device cuda, but PyTorch {torch.__version__} sees no CUDA device here. "
            "Use --device cpu, or check the driver and that torch is a CUDA build."
        )


class TorchEngine:
    """A backbone run by PyTorch: channels-last, autocast below float32, normalisation on the device."""

    def __init__(
        self, backbone: Backbone, precision: str, batch_size: int | None, num_threads: int, device: str
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda":
            require_cuda()
        if precision == "auto":
            precision = "fp16" if device == "cuda" else "fp32"
        if device == "cpu":
            torch.set_num_threads(num_threads)
            name = platform.processor() or platform.machine()
        else:
            name = torch.cuda.get_device_name()
            torch.backends.cudnn.benchmark = True  # one input shape, so the search for kernels pays
            if precision == "fp32":  # TF32 keeps 10 bits of mantissa: not what fp32 says
                torch.backends.cudnn.allow_tf32 = False
                torch.backends.cuda.matmul.allow_tf32 = False
        self._device, self._dtype = device, _DTYPES.get(precision)
        self._model = Normalised(backbone).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._sub_batch = batch_size or DEFAULT_BATCH_SIZE[device]
        self._info = EngineInfo("torch", precision, name, self._sub_batch)

    @property
    def info(self) -> EngineInfo:
        """Say what executes."""
        return self._info

    def embed_batches(self, batches: Iterable[Pixels]) -> Iterator[Embeddings]:
        """Embed batches of exactly ``info.batch_size`` images; see `pipeline.engines.base.Engine`.

        Where the device's memory doesn't suffice, the batch is cut in halves until it does, and stays so.
        """
        return map(self._embed_batch, batches)

    def _embed_batch(self, pixels: Pixels) -> Embeddings:
        while True:
            try:
                parts = [
                    self._forward(pixels[start : start + self._sub_batch])
                    for start in range(0, len(pixels), self._sub_batch)
                ]
                return np.concatenate(parts)
            except torch.cuda.OutOfMemoryError:
                if self._sub_batch == 1:
                    raise
                self._sub_batch = max(1, self._sub_batch // 2)
                logger.warning("The device's memory doesn't suffice; going on with %d images at once.", self._sub_batch)
                torch.cuda.empty_cache()

    def _forward(self, pixels: Pixels) -> Embeddings:
        batch = torch.tensor(pixels)  # a copy: the pixels lie in read-only shared memory
        if self._device == "cuda":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        with torch.inference_mode(), self._autocast():
            features: Embeddings = self._model(batch).float().cpu().numpy()
        return features

    def _autocast(self) -> AbstractContextManager[object]:
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._device, dtype=self._dtype)
