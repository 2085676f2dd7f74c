"""A network on a CUDA device: recorded as a graph, and fed while it computes.

Three things overlap, each on a stream of its own: pixels on their way in, a batch being computed, embeddings on their
way out. The network is recorded as a CUDA graph, whose launch takes microseconds; to launch its kernels one by one from
Python may take longer than a fast GPU takes to run them.

Not ``torch.compile``: it would compile for tens of seconds in each actor, where the rest of the start takes a few, and
needs Triton and a C compiler on each node. What it gains elsewhere, joined kernels, a ResNet gets from cuDNN
(`pipeline.engines.fused`), to which torch.compile, too, leaves convolutions. ``make bench-gpu`` measures both.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from pipeline.backbones import Backbone
from pipeline.engines.base import Embeddings
from pipeline.engines.fused import by_cudnn, choose_ways, step_by_step
from pipeline.engines.probe import best_size, remembered
from pipeline.engines.ring import Batch
from pipeline.engines.scaled import Scaled

logger = logging.getLogger(__name__)

#: Batches at work: one on its way in, one being computed, one on its way out.
_NUM_LANES = 3
#: Calls before anything is timed or recorded: the first one searches for kernels, and allocates.
_WARM_UP, _TIMED = 2, 3
#: How long a batch size is measured (seconds).
_MEASURE_S = 0.5
#: Images in one call that are tried.
SIZES = (128, 256, 512)

Network = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams of a device."""

    copy_in: torch.cuda.Stream = field(default_factory=torch.cuda.Stream)
    compute: torch.cuda.Stream = field(default_factory=torch.cuda.Stream)
    copy_out: torch.cuda.Stream = field(default_factory=torch.cuda.Stream)


class CudaNetwork:
    """A network on a CUDA device, for batches of any size."""

    def __init__(self, model: Scaled, backbone: Backbone) -> None:
        self._model, self._contract, self._side = model, backbone.contract, backbone.preprocessing.crop
        self._streams = Streams()
        torch.backends.cudnn.benchmark = True  # one input shape, so the search for kernels pays
        if model.dtype == torch.float32:  # TF32 keeps 10 bits of mantissa: not what fp32 says
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False

    def lanes(self, size: int) -> list[CudaLane]:
        """Return lanes for batches of one size.

        Raises:
            torch.cuda.OutOfMemoryError: The device has not the memory.
        """
        network = self.recorded(size)
        shape = size, self._side, self._side, 3
        dim = self._contract.embedding_dim
        lanes = [CudaLane(network, self._streams, shape, dim) for _ in range(_NUM_LANES)]
        torch.cuda.synchronize()  # their memory may have been another stream's
        return lanes

    def best_batch_size(self, precision: str, cache_dir: str | None) -> int:
        """Return how many images in one call are embedded fastest, found out once for each kind of device."""
        what = (self._contract.digest, precision, torch.cuda.get_device_name(), torch.__version__)
        return remembered(lambda: best_size(self.images_per_s, SIZES), what, cache_dir)

    def images_per_s(self, size: int, seconds: float = _MEASURE_S) -> float:
        """Measure images/s at one batch size, of pixels that lie on the device.

        Args:
            size: Images in one call.
            seconds: How long to measure: clocks take a while to rise, and to fall once the power limit is reached.

        Raises:
            torch.cuda.OutOfMemoryError: The device has not the memory.
        """
        network, pixels = self.recorded(size), self._pixels(size)
        with torch.cuda.stream(self._streams.compute), torch.inference_mode():
            once = _seconds(lambda: network(pixels))
            return size / _seconds(lambda: network(pixels), max(_TIMED, round(seconds / once)))

    def recorded(self, size: int) -> Network:
        """Return the network recorded for batches of one size, or as it is where that can't be done.

        Raises:
            torch.cuda.OutOfMemoryError: The device has not the memory.
        """
        pixels, model = self._pixels(size), self._model
        with torch.cuda.stream(self._streams.compute), torch.inference_mode():
            choose_ways(model.network, model.normalised(pixels), (by_cudnn, step_by_step), _seconds)
            for _ in range(_WARM_UP):
                model(pixels)
        try:
            with torch.cuda.stream(torch.cuda.current_stream()):  # a recording that fails leaves another one behind
                return Recorded(model, pixels, self._streams.compute)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logger.warning("The network can't be recorded as a CUDA graph, which makes it slower: %s", error)
            return model

    def _pixels(self, size: int) -> torch.Tensor:
        """Return pixels to measure with: of zeros, a device multiplies more in a second, since they take less power."""
        pixels = torch.randint(256, (size, self._side, self._side, 3), dtype=torch.uint8, device="cuda")
        torch.cuda.current_stream().synchronize()  # it is used on another stream
        return pixels


class Recorded:
    """A network recorded as a CUDA graph.

    Args:
        network: From uint8 of shape (B, H, W, 3) to float32 of shape (B, D); has been called with such pixels before.
        pixels: Where it finds its input at each call.
        stream: Where it is recorded and called.
    """

    def __init__(self, network: Network, pixels: torch.Tensor, stream: torch.cuda.Stream) -> None:
        self._graph, self._pixels = torch.cuda.CUDAGraph(), pixels
        with torch.inference_mode(), torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._embeddings = network(pixels)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed a batch; the result is overwritten by the next call."""
        self._pixels.copy_(pixels, non_blocking=True)
        self._graph.replay()
        return self._embeddings


class CudaLane:
    """One batch's way through the device; see `pipeline.engines.lanes.Lane`."""

    def __init__(self, network: Network, streams: Streams, shape: tuple[int, int, int, int], dim: int) -> None:
        self._network, self._streams, self._count = network, streams, 0
        self._host_pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self._pixels = torch.empty(shape, dtype=torch.uint8, device="cuda")
        self._embeddings = torch.empty((shape[0], dim), device="cuda")
        self._host_embeddings = torch.empty((shape[0], dim), pin_memory=True)
        self._copied_in, self._computed = torch.cuda.Event(), torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied_out = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # waiting takes no core

    def submit(self, pixels: Batch) -> None:
        """Start on some images: copy them in, embed them, copy the embeddings out, each as soon as it can be done."""
        count = self._count = len(pixels)
        if isinstance(pixels, torch.Tensor):  # copied by the stream that made them, so neither waits for the other
            source, stream = pixels, torch.cuda.current_stream()
        else:
            self._host_pixels.numpy()[:count] = pixels
            source, stream = self._host_pixels[:count], self._streams.copy_in
        with torch.inference_mode():
            with torch.cuda.stream(stream):
                self._pixels[:count].copy_(source, non_blocking=True)
                self._copied_in.record()
            with torch.cuda.stream(self._streams.compute):
                self._copied_in.wait()
                self._embeddings.copy_(self._network(self._pixels))
                self._computed.record()
            with torch.cuda.stream(self._streams.copy_out):
                self._computed.wait()
                self._host_embeddings[:count].copy_(self._embeddings[:count], non_blocking=True)
                self._copied_out.record()

    def collect(self) -> Embeddings:
        """Wait for the embeddings."""
        self._copied_out.synchronize()
        embeddings: Embeddings = self._host_embeddings[: self._count].numpy().copy()  # the next batch overwrites them
        return embeddings


def end_if_lost() -> None:
    """End this process where its device answers no more: an illegal access, say, is for the rest of a process's life.

    Ray starts the actor anew then. Otherwise it would fail one unit after the other, faster than others embed them.
    """
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        logger.error("The device is lost to this process, which ends: %s", error)
        os._exit(1)


def _seconds(call: Callable[[], object], times: int = _TIMED) -> float:
    """Return how long a call takes on the current stream (seconds), as the mean of some."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    for _ in range(_WARM_UP):
        call()
    begin.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000 / times
