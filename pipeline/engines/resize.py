"""Resizing and cropping by PyTorch, on any device, to the pixels that the CPU's preprocessing gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch.nn import functional

from pipeline.errors import ConfigError
from pipeline.preprocessing import Preprocessing


def require_resizable(preprocessing: Preprocessing) -> None:
    """Refuse a preprocessing that `resize_and_crop` doesn't do.

    Raises:
        ConfigError: It resizes in another way.
    """
    if preprocessing.resize != "exact" or preprocessing.interpolation != "opencv-bilinear":
        raise ConfigError(
            "Expected, for --decode gpu, a preprocessing that resizes to a fixed size as OpenCV does; "
            f"{preprocessing.name} has {preprocessing.resize}, {preprocessing.interpolation}. Use --decode cpu."
        )


def resize_and_crop(images: Sequence[torch.Tensor], preprocessing: Preprocessing) -> list[torch.Tensor]:
    """Resize, crop and reorder images as `pipeline.preprocessing.Preprocessing.pixels` does, to one grey level.

    OpenCV's bilinear resize and PyTorch's take the same two pixels in each direction (half-pixel centres, no
    antialiasing, the edge repeated). OpenCV computes in fixed point, and cuts off where PyTorch rounds: one value in
    nine is a grey level lower.

    Args:
        images: uint8 of shape (3, H, W), RGB, each of its own size.
        preprocessing: One that `require_resizable` accepts.

    Returns:
        uint8 of shape (crop, crop, 3), BGR, for each image, in order, on its device.
    """
    size, crop = preprocessing.size, preprocessing.crop
    margin = round((size - crop) / 2)
    inside = slice(margin, margin + crop)
    by_shape = defaultdict[torch.Size, list[int]](list)
    for place, image in enumerate(images):
        by_shape[image.shape].append(place)
    crops = list(images)
    for places in by_shape.values():  # images of one size at once: each call costs as much as for a single one
        same = torch.stack([images[place] for place in places]).flip(1).float()
        resized = functional.interpolate(same, (size, size), mode="bilinear", align_corners=False, antialias=False)
        pixels = (resized[:, :, inside, inside] + 0.5).to(torch.uint8).permute(0, 2, 3, 1)  # half a level rounds up
        for place, one in zip(places, pixels, strict=True):
            crops[place] = one
    return crops
