"""A network that takes pixels, for PyTorch: normalised and cast in one step, then embedded in one precision."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.backbones import Backbone
from pipeline.engines.fused import fused


class Scaled(nn.Module):
    """A backbone's network in one precision, with its normalisation in front, so that uint8 pixels travel.

    Forward takes uint8 of shape (B, H, W, 3) in the preprocessing's channel order and returns float32 of shape (B, D).
    The weights are cast once: under autocast, each call would look again for what to cast.

    Args:
        backbone: Whose network; it stays as it is.
        dtype: What the network computes in.
    """

    def __init__(self, backbone: Backbone, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = fused(backbone.network).to(dtype)
        self.dtype = dtype
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        mean, std = (
            torch.tensor(x).view(1, 3, 1, 1) for x in (backbone.preprocessing.mean, backbone.preprocessing.std)
        )
        # (x / 255 - mean) / std, as torchvision's ToTensor and Normalize
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise and embed."""
        features: torch.Tensor = self.network(self.normalised(pixels))
        return features.float()

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the network's input, of shape (B, 3, H, W), channels last, computed in float32 by one kernel."""
        images = pixels.permute(0, 3, 1, 2)
        out = torch.empty_like(images, dtype=self.dtype)  # keeps the order in memory, which is channels last
        return torch.addcmul(self.shift, images, self.scale, out=out)
