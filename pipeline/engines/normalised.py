"""A network with its normalisation in front."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.backbones import Backbone


class Normalised(nn.Module):
    """A network with its normalisation in front, so that uint8 pixels travel and the device scales them.

    Forward takes uint8 of shape (B, H, W, 3) in the preprocessing's channel order and returns (B, D).
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network = backbone.network
        self.mean: torch.Tensor
        self.std: torch.Tensor
        # (x / 255 - mean) / std, as torchvision's ToTensor and Normalize
        self.register_buffer("mean", 255 * torch.tensor(backbone.preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(backbone.preprocessing.std).view(1, 3, 1, 1))
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise and embed."""
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)
        features: torch.Tensor = self.network((images - self.mean) / self.std)
        return features
