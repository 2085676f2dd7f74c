"""Engines: what auto chooses, what is refused, and that batches don't matter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from pipeline.backbones import load_backbone
from pipeline.engines import SharedEngine, choose_engine, embed, embed_by_batches, load_engine
from pipeline.engines.base import EngineInfo
from pipeline.engines.openvino import import_openvino
from pipeline.engines.torch import TorchEngine
from pipeline.errors import ConfigError
from pipeline.images import Pixels


@pytest.mark.parametrize(
    ("engine", "device", "cuda", "chosen"),
    [
        ("auto", "auto", False, ("openvino", "cpu")),
        ("auto", "auto", True, ("torch", "cuda")),
        ("auto", "cpu", True, ("openvino", "cpu")),
        ("auto", "cuda", False, ("torch", "cuda")),
        ("torch", "auto", False, ("torch", "cpu")),
        ("openvino", "auto", True, ("openvino", "cpu")),
    ],
)
def test_choose_engine(engine: str, device: str, cuda: bool, chosen: tuple[str, str]) -> None:
    assert choose_engine(engine, device, cuda) == chosen


def test_choose_engine__openvino_has_no_cuda() -> None:
    with pytest.raises(ConfigError, match="--engine torch"):
        choose_engine("openvino", "cuda", cuda=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_load_engine__cuda_is_refused_without_a_device() -> None:
    with pytest.raises(ConfigError, match="sees no CUDA device"):
        load_engine(load_backbone("pixels"), "torch", device="cuda")


class Recorder:
    """An engine that returns each image's first pixel, and keeps the shapes that it was called with."""

    def __init__(self, batch_size: int) -> None:
        self.info = EngineInfo("recorder", "fp32", "none", batch_size)
        self.shapes: list[tuple[int, ...]] = []

    def embed_batches(self, batches: Iterable[Pixels]) -> Iterator[np.ndarray]:
        for pixels in batches:
            self.shapes.append(pixels.shape)
            yield pixels[:, 0, 0, :2].astype(np.float32)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9])
def test_embed__each_batch_has_one_shape_and_padding_is_dropped(count: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), np.uint8)
    engine = Recorder(4)
    np.testing.assert_array_equal(embed(engine, pixels), pixels[:, 0, 0, :2])
    assert set(engine.shapes) == {(4, 2, 2, 3)}


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_engines__pixels_are_means_of_the_grid(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    engine = load_engine(load_backbone("pixels"), name, "fp32", batch_size=2)  # type: ignore[arg-type]
    expected = pixels.reshape(5, 8, 4, 8, 4, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(5, 192) / 255
    np.testing.assert_allclose(embed(engine, pixels), expected, atol=1e-6)
    assert engine.info.engine == name
    assert engine.info.precision == "fp32"
    assert engine.info.batch_size == 2


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_engines__results_come_in_order_however_many_batches_are_at_work(name: str) -> None:
    pixels = np.repeat(np.arange(200, dtype=np.uint8), 32 * 32 * 3).reshape(200, 32, 32, 3)
    engine = load_engine(load_backbone("pixels"), name, "fp32", batch_size=3, num_threads=2)  # type: ignore[arg-type]
    for _ in range(2):
        np.testing.assert_allclose(embed(engine, pixels)[:, 0] * 255, np.arange(200), atol=1e-3)


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_engines__go_on_after_somebody_wanted_no_more(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    engine = load_engine(load_backbone("pixels"), name, "fp32", batch_size=4, num_threads=2)  # type: ignore[arg-type]
    expected = embed(engine, pixels)
    for stop in (0, 1, 3):
        some = embed_by_batches(engine, pixels)
        for _ in range(stop):
            next(some)
        del some
        np.testing.assert_array_equal(embed(engine, pixels), expected)


def test_openvino__several_threads_get_their_own_rows() -> None:
    engine = load_engine(load_backbone("pixels"), "openvino", "fp32", batch_size=3, num_threads=2)
    assert isinstance(engine, SharedEngine)

    def rows(first: int) -> np.ndarray:
        values = np.arange(first, first + 50, dtype=np.uint8)
        return embed(engine, np.repeat(values, 32 * 32 * 3).reshape(50, 32, 32, 3))[:, 0]

    with ThreadPoolExecutor(4) as pool:
        for first, found in zip(range(0, 200, 5), pool.map(rows, range(0, 200, 5)), strict=True):
            np.testing.assert_allclose(found * 255, np.arange(first, first + 50), atol=1e-3)


def test_openvino__what_is_wrong_with_a_batch_is_no_matter_of_others() -> None:
    engine = load_engine(load_backbone("pixels"), "openvino", "fp32", batch_size=3, num_threads=2)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
    expected = embed(engine, pixels)
    for _ in range(4):
        with pytest.raises(RuntimeError):
            list(engine.embed_batches([pixels[:3], pixels[:2]]))
        np.testing.assert_array_equal(embed(engine, pixels), expected)


def test_openvino__refuses_a_precision_that_the_processor_lacks() -> None:
    core = import_openvino().Core()
    if {"BF16", "FP16"} <= set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")):
        pytest.skip("this processor has all precisions")
    missing = "fp16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "bf16"
    with pytest.raises(ConfigError, match=rf"--precision {missing} with --engine openvino, but this processor"):
        load_engine(load_backbone("pixels"), "openvino", missing)  # type: ignore[arg-type]


def test_openvino__auto_uses_bf16_where_the_processor_has_it() -> None:
    capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    engine = load_engine(load_backbone("pixels"), "openvino", "auto")
    assert engine.info.precision == ("bf16" if "BF16" in capabilities else "fp32")


def test_openvino__telemetry_is_not_loaded() -> None:
    code = (
        "from pipeline.engines.openvino import import_openvino; import sys; ov = import_openvino(); "
        "from openvino.tools.ovc import telemetry_utils; print(telemetry_utils.tm.__name__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "openvino.tools.ovc.telemetry_stub"


def test_torch__halves_the_batch_until_it_fits_the_memory() -> None:
    engine = TorchEngine(load_backbone("pixels"), "fp32", 16, 1, "cpu")
    forward, sizes = engine._forward, []

    def scarce(pixels: Pixels) -> np.ndarray:
        sizes.append(len(pixels))
        if len(pixels) > 5:
            raise torch.cuda.OutOfMemoryError
        return forward(pixels)

    engine._forward = scarce  # type: ignore[method-assign]
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(next(iter(engine.embed_batches([pixels]))), forward(pixels))
    assert sizes == [16, 8, 4, 4, 4, 4]
    sizes.clear()
    list(engine.embed_batches([pixels]))
    assert sizes == [4, 4, 4, 4]
