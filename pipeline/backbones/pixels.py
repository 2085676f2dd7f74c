"""Pixels: 8 x 8 mean colours, 192-d, no weights. The floor that any learned backbone must beat.

A probe that does as well on these as on a backbone's features says that the task is about colour and layout alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.backbones.family import BackboneFamily
from pipeline.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn

_GRID = 8

PIXELS_PRESET = Preprocessing(
    name="pixels",
    resize="exact",
    size=32,
    crop=32,
    interpolation="opencv-bilinear",
    channel_order="BGR",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


def _build() -> nn.Module:
    from torch import nn

    return nn.Sequential(nn.AvgPool2d(PIXELS_PRESET.crop // _GRID), nn.Flatten())


PIXELS = BackboneFamily(
    name="pixels",
    build=_build,
    embedding_dim=3 * _GRID * _GRID,
    presets=(PIXELS_PRESET,),
    packages=(),
    published_url=None,
)
