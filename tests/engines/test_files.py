"""Files decoded by the engine's device: the same pixels, and the CPU for what the device can't decode."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.backbones.microsoftvision import FRUITS360_NOTEBOOK, MICROSOFTVISION
from pipeline.backbones.pixels import PIXELS_PRESET
from pipeline.engines import FileEngine, embed, load_engine, load_file_engine
from pipeline.engines.files import TorchFileEngine, nvjpeg
from pipeline.engines.resize import resize_and_crop
from pipeline.engines.torch import TorchEngine
from pipeline.errors import ConfigError, RejectCode
from pipeline.images import Limits, Pixels, decode
from tests import samples

SIZES = [(375, 500), (500, 375), (256, 256), (512, 512), (1024, 1024), (100, 100), (17, 900), (1, 1), (257, 255)]
#: Where OpenCV doesn't interpolate, or by halves only.
EXACT_SIZES = [(256, 256), (512, 512), (1, 1)]


def chw(image: Pixels) -> torch.Tensor:
    """From BGR as OpenCV decodes to RGB as nvJPEG does."""
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resize_and_crop__equals_opencv_to_one_grey_level(size: tuple[int, int]) -> None:
    photograph = cv2.resize(samples.photographs()[0], size[::-1], interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for image in (photograph, noise):
        expected = MICROSOFTVISION.pixels(image).astype(int)  # type: ignore[arg-type]
        (pixels,) = resize_and_crop([chw(image)], MICROSOFTVISION)  # type: ignore[arg-type]
        difference = np.abs(pixels.numpy().astype(int) - expected)
        assert difference.max() <= (0 if size in EXACT_SIZES else 1)
        assert difference.mean() < 0.13


def test_resize_and_crop__images_of_many_sizes_stay_in_order() -> None:
    images = [samples.crop(seed, *size) for seed, size in enumerate([(90, 70), (80, 80), (90, 70), (32, 32), (80, 80)])]
    for image, pixels in zip(images, resize_and_crop([chw(i) for i in images], PIXELS_PRESET), strict=True):
        assert pixels.shape == (32, 32, 3)
        assert np.abs(pixels.numpy().astype(int) - PIXELS_PRESET.pixels(image)).max() <= 1


class Decoder:
    """Decodes as nvJPEG would, by OpenCV; has room for some images at a time, and can't decode some."""

    def __init__(self, room: int = 100, bad: Sequence[bytes] = ()) -> None:
        self.room, self.bad, self.calls = room, bad, list[int]()

    def __call__(self, files: list[torch.Tensor]) -> list[torch.Tensor]:
        self.calls.append(len(files))
        if len(files) > self.room:
            raise torch.cuda.OutOfMemoryError
        if any(file.numpy().tobytes() in self.bad for file in files):
            raise RuntimeError("nvJPEG can't decode it")
        return [chw(cv2.imdecode(file.numpy(), cv2.IMREAD_COLOR)) for file in files]  # type: ignore[arg-type]


def engine(decoder: Decoder, batch_size: int = 4) -> TorchFileEngine:
    inner = TorchEngine(load_backbone("pixels"), "fp32", batch_size, 1, "cpu")
    made = TorchFileEngine(inner, PIXELS_PRESET, Limits(), decoder)
    decoder.calls.clear()  # of its trial
    return made


FILES = [samples.jpeg(seed, 40 + seed, 60) for seed in range(10)]


def by_cpu(files: Sequence[bytes]) -> np.ndarray:
    pixels = np.stack([PIXELS_PRESET.pixels(decode(data)) for data in files])
    return embed(load_engine(load_backbone("pixels"), "torch", "fp32"), pixels)


def test_embed_files__gives_what_the_cpu_would_in_order() -> None:
    made = engine(Decoder())
    assert isinstance(made, FileEngine)
    assert (made.info.decode, made.info.batch_size) == ("gpu", 4)
    results = list(made.embed_files([FILES[:4], FILES[4:8], FILES[8:]]))
    assert [(len(vectors), rejects) for vectors, rejects in results] == [(4, {}), (4, {}), (2, {})]
    np.testing.assert_allclose(np.concatenate([v for v, _ in results]), by_cpu(FILES), atol=1 / 255)


def test_embed_files__a_batch_is_decoded_when_the_engine_takes_it() -> None:
    decoder = Decoder()
    results = engine(decoder).embed_files([FILES[:4], FILES[4:8]])
    assert decoder.calls == []
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(decoder.calls) <= 2


def test_embed_files__what_the_device_cannot_decode_the_cpu_decodes() -> None:
    decoder = Decoder(bad=FILES[1:3])
    ((vectors, rejects),) = engine(decoder).embed_files([FILES[:4]])
    assert rejects == {}
    np.testing.assert_allclose(vectors, by_cpu(FILES[:4]), atol=1 / 255)
    assert decoder.calls == [4, 2, 1, 1, 2, 1, 1]


def test_embed_files__what_nobody_can_decode_is_a_reject_and_its_neighbours_are_kept() -> None:
    data, code = samples.bad_images()["header-only.jpg"]
    ((vectors, rejects),) = engine(Decoder(bad=[data])).embed_files([[FILES[0], data, FILES[1]]])
    assert {place: (reject.stage, reject.code) for place, reject in rejects.items()} == {
        1: ("decode", RejectCode(code))
    }
    np.testing.assert_allclose(vectors[[0, 2]], by_cpu(FILES[:2]), atol=1 / 255)


def test_embed_files__decodes_as_many_as_there_is_room_for() -> None:
    decoder = Decoder(room=2)
    ((vectors, _),) = engine(decoder).embed_files([FILES[:4]])
    assert decoder.calls == [4, 2, 2]
    np.testing.assert_allclose(vectors, by_cpu(FILES[:4]), atol=1 / 255)


def test_embed_files__large_files_are_decoded_a_few_at_a_time() -> None:
    padded = [data + bytes(12 * 2**20) for data in FILES[:4]]  # what follows the image is nobody's
    decoder = Decoder()
    ((vectors, _),) = engine(decoder).embed_files([padded])
    assert decoder.calls == [2, 2]
    np.testing.assert_allclose(vectors, by_cpu(FILES[:4]), atol=1 / 255)


def test_torch_file_engine__a_decoder_that_decodes_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="the decoder fails on a sound JPEG"):
        engine(Decoder(room=0))


def test_torch_file_engine__another_resize_is_refused() -> None:
    inner = TorchEngine(load_backbone("pixels"), "fp32", 4, 1, "cpu")
    with pytest.raises(ConfigError, match="fruits360-notebook has short_side, pillow-bilinear"):
        TorchFileEngine(inner, FRUITS360_NOTEBOOK, Limits(), Decoder())


def test_load_file_engine__is_for_cuda_only() -> None:
    backbone = load_backbone("pixels")
    for name in ("torch", "openvino"):
        with pytest.raises(ConfigError, match="Use --decode cpu"):
            load_file_engine(load_engine(backbone, name, device="cpu"), backbone, Limits())  # type: ignore[arg-type]


def test_nvjpeg__a_torchvision_that_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text('raise RuntimeError("operator nms does not exist")')
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match="operator nms does not exist"):
        nvjpeg()


def test_nvjpeg__torchvision_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[gpu\]'"):
        nvjpeg()
