"""Preprocessing of a backbone: the part on the CPU (resize, crop) and the constants of the part on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import cv2
import numpy as np

from pipeline.images import Limits, Pixels, decode

#: From an image's bytes to its pixels, uint8 of shape (crop, crop, 3), BGR, and (height, width) of the whole image.
#: Raises ImageReject for what is permanent.
Decode = Callable[[bytes], tuple[Pixels, tuple[int, int]]]

#: An image whose resized length is more crops than this is cut around its centre first; no photograph is so long.
_LONGEST_STRIP = 64


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a decoded image becomes the network's input.

    Args:
        name: The preset's name.
        resize: ``exact``: both sides to ``size``, the aspect not kept. ``short_side``: the short side to ``size``.
        size: Length in pixels that `resize` aims at.
        crop: Side in pixels of the square cut from the centre.
        interpolation: ``opencv-bilinear``: ``cv2.INTER_LINEAR``, no antialiasing. ``pillow-bilinear``: Pillow's
            bilinear filter, which averages over the source pixels when it shrinks.
        channel_order: Order of the channels that the network sees, and of ``mean`` and ``std``.
        mean: Subtracted from each channel of the image scaled to [0, 1].
        std: Divides each channel after that.
    """

    name: str
    resize: Literal["exact", "short_side"]
    size: int
    crop: int
    interpolation: Literal["opencv-bilinear", "pillow-bilinear"]
    channel_order: Literal["BGR"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Return every constant as plain JSON values."""
        value = asdict(self)
        value["mean"], value["std"] = list(self.mean), list(self.std)
        return value

    def is_small(self, size: tuple[int, int]) -> bool:
        """Return whether an image of (height, width) lies within a crop, and has less than half of its pixels."""
        return max(size) <= self.crop and 2 * size[0] * size[1] < self.crop**2

    def pixels(self, image: Pixels) -> Pixels:
        """Resize and crop one image.

        Args:
            image: uint8 array of shape (H, W, 3), BGR.

        Returns:
            uint8 array of shape (crop, crop, 3), BGR. Scaling and normalising are left to the device.
        """
        height, width = image.shape[:2]
        if self.resize == "exact":
            new_height = new_width = self.size
        else:
            # Integer division as torchvision's Resize(int) does it.
            short = min(height, width)
            new_height, new_width = self.size * height // short, self.size * width // short
        # Rounding as torchvision's CenterCrop does it; for even margins it is half of them.
        top, left = round((new_height - self.crop) / 2), round((new_width - self.crop) / 2)
        if (new_height, new_width) == (height, width):
            return image[top : top + self.crop, left : left + self.crop]
        if self.interpolation == "opencv-bilinear":
            resized = cast(Pixels, cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR))
            return resized[top : top + self.crop, left : left + self.crop]
        return _resize_by_pillow(image, (new_height, new_width), (top, left), self.crop)


def decode_and_crop(
    preprocessing: Preprocessing, limits: Limits, data: bytes, leave_small: bool = False
) -> tuple[Pixels, tuple[int, int]]:
    """Decode, resize and crop one image in this process; with its first two arguments bound, a `Decode`.

    Args:
        preprocessing: From a decoded image to pixels.
        limits: What the image may cost.
        data: Its bytes.
        leave_small: Whether what has less than half the pixels of a crop is left as it is decoded: so much less travels
            to where `Preprocessing.pixels` makes a crop of it.

    Raises:
        ImageReject: As `pipeline.images.decode`.
    """
    image = decode(data, limits)
    size = image.shape[0], image.shape[1]
    if leave_small and preprocessing.is_small(size):
        return image, size
    return preprocessing.pixels(image), size


def _resize_by_pillow(image: Pixels, size: tuple[int, int], corner: tuple[int, int], crop: int) -> Pixels:
    """Return the crop of an image as Pillow resizes it.

    An image 1 pixel high and 60,000 wide would grow to 224 x 13,440,000 pixels, of which the crop sees the centre: such
    a strip is cut around its centre before it is resized.
    """
    from PIL import Image  # here, since one preset needs it, and every worker process imports this module

    height, width = image.shape[:2]
    if max(size) > _LONGEST_STRIP * crop:
        scale = max(size[0] / height, size[1] / width)
        rows, columns = (min(length, int(_LONGEST_STRIP * crop / scale) + 1) for length in (height, width))
        first_row, first_column = (height - rows) // 2, (width - columns) // 2
        image = image[first_row : first_row + rows, first_column : first_column + columns]
        size = (max(crop, round(rows * scale)), max(crop, round(columns * scale)))
        corner = (round((size[0] - crop) / 2), round((size[1] - crop) / 2))
    resized = Image.fromarray(np.ascontiguousarray(image)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized)[corner[0] : corner[0] + crop, corner[1] : corner[1] + crop]
