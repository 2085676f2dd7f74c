"""The engine on a CUDA device: what only a device can show. Skipped elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.backbones import Backbone, load_backbone
from pipeline.engines import embed, embed_by_batches, load_engine, load_file_engine
from pipeline.engines.cuda import CudaNetwork, Recorded
from pipeline.engines.torch import TorchEngine
from pipeline.images import Limits, Pixels, decode
from pipeline.jpegs import size_for_gpu
from tests import samples
from tests.engines.test_parity import worst_cosine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

#: Of an image decoded by nvJPEG to one decoded by libjpeg-turbo, in fp16. Their colours differ: libjpeg-turbo smooths
#: where it enlarges 4:2:0's colour planes ("fancy upsampling"), nvJPEG repeats; and both round differently. Below this
#: limit there would be mistakes: swapped colours and a crop two pixels off are at 0.98 and less.
DECODED = 0.99


@pytest.fixture(scope="module")
def backbone(calibrated_weights: Path) -> Backbone:
    return load_backbone("microsoftvision-resnet50", str(calibrated_weights))


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return np.stack([samples.crop(seed, 224, 224) for seed in range(50)])


def engine(
    backbone: Backbone, batch_size: int | None = 16, precision: str = "fp16", cache: Path | None = None
) -> TorchEngine:
    return TorchEngine(backbone, precision, batch_size, 1, "cuda", None if cache is None else str(cache))


def test_cuda__batches_that_overlap_give_what_single_ones_give(backbone: Backbone, pixels: Pixels) -> None:
    loaded = engine(backbone)
    one_by_one = np.concatenate([embed(loaded, pixels[start : start + 16]) for start in range(0, 50, 16)])
    for _ in range(5):
        np.testing.assert_array_equal(embed(loaded, pixels), one_by_one)


def test_cuda__is_recorded_and_gives_what_the_network_gives(backbone: Backbone, pixels: Pixels) -> None:
    loaded = engine(backbone, precision="fp32")
    recorded = CudaNetwork(loaded._model, backbone).recorded(16)
    assert isinstance(recorded, Recorded)
    batch = torch.tensor(pixels[:16], device="cuda")
    with torch.inference_mode():
        expected = loaded._model(batch).cpu().numpy()
        got = recorded(batch).cpu().numpy()
    assert worst_cosine(got, expected) >= 0.99999


def test_cuda__goes_on_after_somebody_wanted_no_more(backbone: Backbone, pixels: Pixels) -> None:
    loaded = engine(backbone, 4)
    expected = embed(loaded, pixels)
    for stop in (0, 1, 3):
        some = embed_by_batches(loaded, pixels)
        for _ in range(stop):
            next(some)
        del some
        np.testing.assert_array_equal(embed(loaded, pixels), expected)


def test_cuda__takes_tensors_of_the_device(backbone: Backbone, pixels: Pixels) -> None:
    loaded = engine(backbone)
    on_device = (torch.tensor(pixels[start : start + 16], device="cuda") for start in (0, 16, 32))
    np.testing.assert_array_equal(np.concatenate(list(loaded.embed_batches(on_device))), embed(loaded, pixels)[:48])


@pytest.fixture
def scarce_memory() -> Iterator[None]:
    """Leave this process 2 GiB of the device."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 2 * 2**30) / total))
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_cuda__a_batch_that_has_no_room_is_halved(backbone: Backbone, pixels: Pixels, scarce_memory: None) -> None:
    loaded = engine(backbone, 4096)
    assert loaded.info.batch_size == 4096
    vectors = embed(loaded, pixels)
    assert loaded._ring._size < 4096
    assert worst_cosine(vectors, embed(engine(backbone), pixels)) >= 0.999


def test_cuda__the_batch_size_is_found_out_once(backbone: Backbone, tmp_path: Path) -> None:
    chosen = engine(backbone, None, cache=tmp_path).info.batch_size
    assert chosen in (128, 256, 512)
    (note,) = (tmp_path / "batch-sizes").iterdir()
    note.write_text("48")
    assert engine(backbone, None, cache=tmp_path).info.batch_size == 48


def test_cuda__images_that_it_decodes_have_nearly_the_same_embeddings(backbone: Backbone) -> None:
    pytest.importorskip("torchvision")
    loaded = load_engine(backbone, "torch", "fp16", batch_size=16, device="cuda")
    decoding = load_file_engine(loaded, backbone, Limits())
    files = [samples.jpeg(seed, 300 + seed, 400) for seed in range(30)]
    files += [samples.encode(samples.crop(7, 333, 500), "JPEG", subsampling=how) for how in (0, 1, 2)]
    assert all(size_for_gpu(data, Limits()) for data in files)
    results = list(decoding.embed_files([files[:16], files[16:32], files[32:]]))
    assert [rejects for _, rejects in results] == [{}] * 3
    by_cpu = np.stack([backbone.preprocessing.pixels(decode(data)) for data in files])
    assert worst_cosine(np.concatenate([vectors for vectors, _ in results]), embed(loaded, by_cpu)) >= DECODED


def test_cuda__what_it_cannot_decode_the_cpu_does_or_rejects(backbone: Backbone) -> None:
    pytest.importorskip("torchvision")
    loaded = load_engine(backbone, "torch", "fp16", batch_size=8, device="cuda")
    good, (bad, code) = samples.jpeg(0, 300, 400), samples.bad_images()["header-only.jpg"]
    odd = samples.odd_images()["plain.png"]  # no JPEG; of some odd JPEGs nvJPEG makes other colours
    ((vectors, rejects),) = load_file_engine(loaded, backbone, Limits()).embed_files([[good, bad, odd, good]])
    assert {place: reject.code.value for place, reject in rejects.items()} == {1: code}
    by_cpu = np.stack([backbone.preprocessing.pixels(decode(data)) for data in (good, odd, good)])
    assert worst_cosine(vectors[[0, 2, 3]], embed(loaded, by_cpu)) >= DECODED
