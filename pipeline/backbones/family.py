"""What a file of this folder says about its backbones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class BackboneFamily:
    """A network that can be loaded by name.

    Args:
        name: The name that users give.
        build: Makes the network with its own random initialisation. Its forward takes float32 of shape (B, 3, H, W),
            normalised, in the preset's channel order, and returns float32 of shape (B, D).
        embedding_dim: D.
        presets: Its preprocessings by name; the first is the default.
        packages: Names of the packages that the network comes from.
        published_url: Returns where the authors keep the weights, or None where the network has no weights.
    """

    name: str
    build: Callable[[], nn.Module]
    embedding_dim: int
    presets: tuple[Preprocessing, ...]
    packages: tuple[str, ...]
    published_url: Callable[[], str] | None
