"""Presets against formulas written from their sources."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.backbones import find_preset
from pipeline.errors import ConfigError
from tests import samples

BACKBONE = "microsoftvision-resnet50"


def test_microsoftvision__is_resize_256_and_crop_16() -> None:
    image = cv2.cvtColor(samples.crop(3, 300, 420), cv2.COLOR_RGB2BGR)
    expected = cv2.resize(image, (256, 256))[16:240, 16:240]
    np.testing.assert_array_equal(find_preset(BACKBONE, None).pixels(image), expected)


@pytest.mark.parametrize(("height", "width"), [(300, 420), (420, 300), (224, 224), (225, 500), (50, 31)])
def test_fruits360_notebook__is_short_side_224_and_centre_crop(height: int, width: int) -> None:
    image = cv2.resize(cv2.cvtColor(samples.crop(3), cv2.COLOR_RGB2BGR), (width, height))
    short = min(height, width)
    size = (int(224 * width / short), int(224 * height / short))
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    top, left = round((size[1] - 224) / 2), round((size[0] - 224) / 2)
    expected = resized[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(find_preset(BACKBONE, "fruits360-notebook").pixels(image), expected)


def test_presets__have_the_published_constants() -> None:
    usual, notebook = (find_preset(BACKBONE, name) for name in ("microsoftvision", "fruits360-notebook"))
    assert usual.mean == notebook.mean == (0.485, 0.456, 0.406)
    assert usual.std == (0.229, 0.224, 0.225)
    assert notebook.std == (0.225, 0.224, 0.229)


def test_find_preset__names_what_there_is() -> None:
    with pytest.raises(ConfigError, match="microsoftvision, fruits360-notebook"):
        find_preset(BACKBONE, "imagenet")
    with pytest.raises(ConfigError, match="microsoftvision-resnet50, pixels"):
        find_preset("vgg", None)


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)])
def test_fruits360_notebook__a_strip_does_not_grow_beyond_bounds(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    pixels = find_preset(BACKBONE, "fruits360-notebook").pixels(image)
    assert pixels.shape == (224, 224, 3)
