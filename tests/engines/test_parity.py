"""Parity: embeddings equal a reference written straight from the model's page, and a wrong one would be found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.backbones import Backbone, load_backbone
from pipeline.choices import EngineName, Precision
from pipeline.engines import embed, load_engine
from pipeline.engines.openvino import import_openvino
from pipeline.images import decode
from tests import samples

EXACT, REDUCED = 0.99999, 0.995
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
Vectors = NDArray[np.float32]


def page_pixels(path: Path) -> NDArray[np.uint8]:
    """Preprocess as https://pypi.org/project/microsoftvision/ does, up to ToTensor."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return cv2.resize(image, (256, 256))[16 : 256 - 16, 16 : 256 - 16]  # type: ignore[return-value]


def page_normalise(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """ToTensor and Normalize of the same page."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255
    return (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def network_one_by_one(network: torch.nn.Module, images: list[torch.Tensor]) -> Vectors:
    with torch.inference_mode():
        return np.concatenate([network(image[None]).numpy() for image in images])


def worst_cosine(a: Vectors, b: Vectors) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("parity")
    names = {"small.png", "huge aspect.jpg"}
    images = {**samples.odd_images(), "small.png": samples.encode(samples.crop(2, 8, 9), "PNG")}
    images["huge aspect.jpg"] = samples.jpeg(4, 40, 600)
    chosen = [name for name in images if name in names or not name.startswith("exif") or name == "exif6.jpg"]
    return [samples.write(folder / name, images[name]) for name in sorted(chosen)]


@pytest.fixture(scope="module")
def backbone(calibrated_weights: Path) -> Backbone:
    return load_backbone("microsoftvision-resnet50", str(calibrated_weights))


@pytest.fixture(scope="module")
def reference(backbone: Backbone, paths: list[Path]) -> Vectors:
    return network_one_by_one(backbone.network, [page_normalise(page_pixels(path)) for path in paths])


def embeddings(backbone: Backbone, paths: list[Path], engine: EngineName, precision: Precision, batch: int) -> Vectors:
    loaded = load_engine(backbone, engine, precision, batch_size=batch)
    return embed(loaded, np.stack([backbone.preprocessing.pixels(decode(path.read_bytes())) for path in paths]))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_torch_fp32__equals_the_reference(
    backbone: Backbone, paths: list[Path], reference: Vectors, batch_size: int
) -> None:
    assert worst_cosine(embeddings(backbone, paths, "torch", "fp32", batch_size), reference) >= EXACT


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_openvino_default__equals_the_reference(
    backbone: Backbone, paths: list[Path], reference: Vectors, batch_size: int
) -> None:
    assert worst_cosine(embeddings(backbone, paths, "openvino", "auto", batch_size), reference) >= REDUCED


def test_openvino_fp32__equals_the_reference(backbone: Backbone, paths: list[Path], reference: Vectors) -> None:
    assert worst_cosine(embeddings(backbone, paths, "openvino", "fp32", 16), reference) >= EXACT


def test_openvino_bf16__equals_the_reference(backbone: Backbone, paths: list[Path], reference: Vectors) -> None:
    if "BF16" not in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16")
    assert worst_cosine(embeddings(backbone, paths, "openvino", "bf16", 16), reference) >= REDUCED


def test_torch_bf16__equals_the_reference(backbone: Backbone, paths: list[Path], reference: Vectors) -> None:
    assert REDUCED <= worst_cosine(embeddings(backbone, paths, "torch", "bf16", 8), reference) < EXACT


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "least"), [("fp32", EXACT), ("fp16", REDUCED), ("bf16", REDUCED)])
def test_torch_cuda__equals_the_reference(
    backbone: Backbone, paths: list[Path], reference: Vectors, precision: Precision, least: float
) -> None:
    loaded = load_engine(backbone, "torch", precision, batch_size=16, device="cuda")
    pixels = np.stack([backbone.preprocessing.pixels(decode(path.read_bytes())) for path in paths])
    assert worst_cosine(embed(loaded, pixels), reference) >= least


Mistake = Callable[[Path], torch.Tensor]


def _resized(path: Path, size: int, interpolation: int) -> NDArray[np.uint8]:
    return cv2.resize(cv2.imread(str(path)), (size, size), interpolation=interpolation)  # type: ignore[return-value]


MISTAKES: dict[str, Mistake] = {
    "colours swapped": lambda path: page_normalise(page_pixels(path)[:, :, ::-1]),
    "crop two pixels off": lambda path: page_normalise(_resized(path, 256, cv2.INTER_LINEAR)[18:242, 18:242]),
    "no crop": lambda path: page_normalise(_resized(path, 224, cv2.INTER_LINEAR)),
    "nearest neighbour": lambda path: page_normalise(_resized(path, 256, cv2.INTER_NEAREST)[16:240, 16:240]),
    "cubic": lambda path: page_normalise(_resized(path, 256, cv2.INTER_CUBIC)[16:240, 16:240]),
    "deviations in RGB order": lambda path: (
        page_normalise(page_pixels(path)) * torch.tensor(STD).view(3, 1, 1) / torch.tensor(STD[::-1]).view(3, 1, 1)
    ),
    "no normalisation": lambda path: torch.from_numpy(page_pixels(path).copy()).permute(2, 0, 1).float() / 255,
    "orientation ignored": lambda path: page_normalise(
        cv2.resize(cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION), (256, 256))[16:240, 16:240]
    ),
}
#: Mistakes that even the bar for reduced precision must find.
GROSS = ("colours swapped", "crop two pixels off", "no crop", "nearest neighbour", "no normalisation")


@pytest.mark.parametrize("name", MISTAKES)
def test_parity__finds_a_mistake(backbone: Backbone, paths: list[Path], reference: Vectors, name: str) -> None:
    kinds = {"plain.jpg", "exif6.jpg", "16-bit.png"}
    few = [i for i, path in enumerate(paths) if path.name in kinds]
    wrong = network_one_by_one(backbone.network, [MISTAKES[name](paths[i]) for i in few])
    found = worst_cosine(wrong, reference[few])
    assert found < EXACT
    if name in GROSS:
        assert found < REDUCED


def test_parity__different_images_are_told_apart(reference: Vectors, paths: list[Path]) -> None:
    by_name = {path.name: vector[None] for path, vector in zip(paths, reference, strict=True)}
    assert worst_cosine(by_name["plain.jpg"], by_name["huge aspect.jpg"]) < REDUCED
