"""An engine that gets image files: a GPU decodes, resizes, crops and embeds them without a look back at the host."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch

from pipeline.engines.base import Embeddings, EngineInfo
from pipeline.engines.resize import require_resizable, resize_and_crop
from pipeline.engines.ring import Batch
from pipeline.engines.torch import TorchEngine
from pipeline.errors import ConfigError, ImageReject
from pipeline.images import Limits
from pipeline.preprocessing import Preprocessing, decode_and_crop

#: Bytes of files that are decoded at once: a few hundred images of a few hundred kilopixels, or a few of tens of
#: megapixels, so that their pixels, and their copies in float32, take a small part of a device's memory.
_MOST_BYTES = 2**25

#: Decodes JPEGs: from 1-D uint8 tensors on the host to uint8 of shape (3, H, W), RGB, each of its own size, on the
#: engine's device. Raises RuntimeError if any of them can't be decoded.
DecodeJpegs = Callable[[list[torch.Tensor]], list[torch.Tensor]]


class TorchFileEngine:
    """A `TorchEngine` that decodes JPEGs as well; see `pipeline.engines.base.FileEngine`.

    What its decoder can't decode, the CPU decodes, here, before anything is rejected: which images are good is not for
    nvJPEG to say.

    Args:
        engine: Embeds.
        preprocessing: From a decoded image to pixels.
        limits: What a single image may cost.
        decode_jpegs: Decodes, on the device on which ``engine`` embeds.
    """

    def __init__(
        self, engine: TorchEngine, preprocessing: Preprocessing, limits: Limits, decode_jpegs: DecodeJpegs
    ) -> None:
        require_resizable(preprocessing)
        self._engine, self._preprocessing, self._limits = engine, preprocessing, limits
        self._decode_jpegs = decode_jpegs
        self._require_decoder()

    @property
    def info(self) -> EngineInfo:
        """Say what executes."""
        return replace(self._engine.info, decode="gpu")

    def embed_batches(self, batches: Iterable[Batch]) -> Iterator[Embeddings]:
        """Embed batches of pixels; see `pipeline.engines.base.Engine`."""
        return self._engine.embed_batches(batches)

    def embed_files(self, batches: Iterable[Sequence[bytes]]) -> Iterator[tuple[Embeddings, dict[int, ImageReject]]]:
        """Decode and embed image files; one batch is decoded while others are embedded."""
        counts, rejects = deque[int](), deque[dict[int, ImageReject]]()

        def decoded() -> Iterator[torch.Tensor]:
            for files in batches:
                pixels, rejected = self._decode(files)
                counts.append(len(files))
                rejects.append(rejected)
                yield pixels

        for embeddings in self._engine.embed_batches(decoded()):
            yield embeddings[: counts.popleft()], rejects.popleft()

    def _decode(self, files: Sequence[bytes]) -> tuple[torch.Tensor, dict[int, ImageReject]]:
        """Decode, resize and crop images; zeros stand for rejects, and fill the batch up."""
        crops = [crop for portion in _portions(files) for crop in self._crops(portion)]
        side, rejects = self._preprocessing.crop, dict[int, ImageReject]()
        nothing = torch.zeros((side, side, 3), dtype=torch.uint8, device=self._engine.device)
        batch = [nothing] * self.info.batch_size
        for place, (data, crop) in enumerate(zip(files, crops, strict=True)):
            try:
                batch[place] = self._by_cpu(data) if crop is None else crop
            except ImageReject as reject:
                rejects[place] = reject
        return torch.stack(batch), rejects

    def _by_cpu(self, data: bytes) -> torch.Tensor:
        pixels, _ = decode_and_crop(self._preprocessing, self._limits, data)
        return torch.tensor(pixels, device=self._engine.device)

    def _crops(self, files: Sequence[bytes]) -> list[torch.Tensor | None]:
        """Decode by the device; None for what it can't, which is found by halves, and so is what has room in it."""
        try:
            return list(resize_and_crop(self._decode_jpegs([_tensor(data) for data in files]), self._preprocessing))
        except RuntimeError:  # so are torch.cuda.OutOfMemoryError and whatever nvJPEG says
            if len(files) == 1:
                return [None]
        middle = len(files) // 2
        return [*self._crops(files[:middle]), *self._crops(files[middle:])]

    def _require_decoder(self) -> None:
        """Decode a JPEG of our own: otherwise, without a decoder, the CPU would decode everything, slowly.

        Raises:
            ConfigError: It can't be decoded.
        """
        image = cv2.imencode(".jpg", np.full((64, 64, 3), 128, np.uint8))[1]
        try:
            self._decode_jpegs([torch.from_numpy(image)])
        except (RuntimeError, AttributeError) as error:  # without its image library, torchvision has no such operator
            raise ConfigError(
                f"Asked for --decode gpu, but the decoder fails on a sound JPEG: {error}. Use --decode cpu, or a build "
                "of torchvision with nvJPEG for this version of PyTorch and CUDA."
            ) from None


def _portions(files: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut files into runs of few bytes, of one file at least."""
    start, num_bytes = 0, 0
    for place, data in enumerate(files):
        num_bytes += len(data)
        if num_bytes > _MOST_BYTES and place > start:
            yield files[start:place]
            start, num_bytes = place, len(data)
    if start < len(files):
        yield files[start:]


def _tensor(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())  # PyTorch warns of memory that can't be written


def nvjpeg() -> DecodeJpegs:
    """Return the decoder of the CUDA device that is in use.

    Raises:
        ConfigError: torchvision is not installed, or doesn't fit PyTorch.
    """
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except (ImportError, RuntimeError, OSError) as error:  # the latter two of one that belongs to another PyTorch
        raise ConfigError(
            f"Asked for --decode gpu, for which torchvision is needed: {error}. Install the one that belongs to this "
            "PyTorch (pip install '.[gpu]'), or use --decode cpu."
        ) from None

    def decode(files: list[torch.Tensor]) -> list[torch.Tensor]:
        # torchvision decodes on a stream of its own that doesn't wait for this one, into memory that this one's work
        # on the images before may still be reading (decode_jpegs_cuda.cpp).
        torch.cuda.current_stream().synchronize()
        images: list[torch.Tensor] = decode_jpeg(files, mode=ImageReadMode.RGB, device="cuda")
        return images

    return decode
