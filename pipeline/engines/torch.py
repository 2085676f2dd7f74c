"""PyTorch on a CPU or a CUDA device."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator

import torch

from pipeline.backbones import Backbone
from pipeline.engines.base import Embeddings, EngineInfo
from pipeline.engines.ring import Batch, Ring
from pipeline.engines.scaled import Scaled
from pipeline.errors import ConfigError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Images a call on a CPU; on CUDA it is found out.
_CPU_BATCH_SIZE = 16


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
    """A backbone run by PyTorch: batch norms folded, channels last, weights cast once, normalised on the device.

    Attributes:
        device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        backbone: Backbone,
        precision: str,
        batch_size: int | None,
        num_threads: int,
        device: str,
        cache_dir: str | None = None,
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda":
            require_cuda()
        if precision == "auto":
            precision = "fp16" if device == "cuda" else "fp32"
        self._model = Scaled(backbone, _DTYPES[precision]).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if device == "cuda":
            from pipeline.engines.cuda import CudaNetwork

            name = torch.cuda.get_device_name()
            network = CudaNetwork(self._model, backbone)
            size = batch_size or network.best_batch_size(precision, cache_dir)
            self._ring = Ring(network.lanes, size)
        else:
            name = platform.processor() or platform.machine()
            torch.set_num_threads(num_threads)
            size = batch_size or _CPU_BATCH_SIZE
            self._ring = Ring(lambda _: [_HostLane(self)], size)
        self.device = device
        self._info = EngineInfo("torch", precision, name, size)

    @property
    def info(self) -> EngineInfo:
        """Say what executes."""
        return self._info

    def embed_batches(self, batches: Iterable[Batch]) -> Iterator[Embeddings]:
        """Embed batches of exactly ``info.batch_size`` images; see `pipeline.engines.base.Engine`.

        They may be tensors on the engine's device, too.
        """
        try:
            yield from self._ring.embed_batches(batches)
        except Exception:
            if self.device == "cuda":
                from pipeline.engines.cuda import end_if_lost

                end_if_lost()
            raise

    def _forward(self, pixels: Batch) -> Embeddings:
        if not isinstance(pixels, torch.Tensor):
            pixels = torch.tensor(pixels)  # a copy: the pixels lie in read-only shared memory
        with torch.inference_mode():
            embeddings: Embeddings = self._model(pixels).numpy()
        return embeddings


class _HostLane:
    """A CPU's only lane: it has computed a batch as soon as it has taken it."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine

    def submit(self, pixels: Batch) -> None:
        self._embeddings = self._engine._forward(pixels)

    def collect(self) -> Embeddings:
        return self._embeddings
