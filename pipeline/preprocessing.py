"""Preprocessing of a backbone: the part on the CPU (resize, crop) and the constants of the part on the device."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import cv2
import numpy as np
from PIL import Image

from pipeline.images import Pixels


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
        if (new_height, new_width) != (height, width):
            if self.interpolation == "opencv-bilinear":
                image = cast(Pixels, cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR))
            else:
                resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
                image = np.asarray(resized)
        # Rounding as torchvision's CenterCrop does it; for even margins it is half of them.
        top, left = round((new_height - self.crop) / 2), round((new_width - self.crop) / 2)
        return image[top : top + self.crop, left : left + self.crop]
