"""What a head computes: scores of classes from features. Plain NumPy, so that predicting needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: Slope of the rectifier below zero; PyTorch's default of LeakyReLU.
LEAKY_SLOPE = 0.01

Floats = NDArray[np.float32]
Tensors = dict[str, NDArray[np.generic]]


class Model(Protocol):
    """Gives scores whose softmax, over the head's temperature, is a probability."""

    @property
    def shape(self) -> tuple[int, int]:
        """D and K."""

    def scores(self, X: Floats) -> Floats:
        """Return float32 of shape (B, K) for float32 of shape (B, D)."""

    def tensors(self) -> Tensors:
        """Return what it consists of, by name."""


def on_classes(weight: Floats, bias: Floats, old: Sequence[str], new: Sequence[str]) -> tuple[Floats, Floats]:
    """Return a linear map onto other classes.

    A class that it doesn't have begins with no weights and the mean bias, so that it is neither likely nor ruled out.

    Args:
        weight: float32 of shape (old K, in).
        bias: float32 of shape (old K,).
        old: Its classes.
        new: Those that are wanted.
    """
    places = {name: place for place, name in enumerate(old)}
    wider = np.zeros((len(new), weight.shape[1]), np.float32)
    offset = np.full(len(new), bias.mean(), np.float32)
    for row, name in enumerate(new):
        if name in places:
            wider[row], offset[row] = weight[places[name]], bias[places[name]]
    return wider, offset


@dataclass(frozen=True, slots=True)
class Layers:
    """Standardisation, then linear maps with leaky rectifiers between: logistic, ridge, mlp.

    Args:
        mean: float32 of shape (D,), subtracted from the features.
        scale: float32 of shape (D,), divides them after that.
        layers: Weight of shape (out, in) and bias of shape (out,), float32, of each linear map.
    """

    mean: Floats
    scale: Floats
    layers: tuple[tuple[Floats, Floats], ...]

    @property
    def shape(self) -> tuple[int, int]:
        """D and K."""
        return len(self.mean), len(self.layers[-1][1])

    def scores(self, X: Floats) -> Floats:
        """Return the last map's output: float32 of shape (B, K)."""
        hidden = (X - self.mean) / self.scale
        for place, (weight, bias) in enumerate(self.layers):
            if place:
                hidden = np.where(hidden > 0, hidden, LEAKY_SLOPE * hidden)
            hidden = hidden @ weight.T + bias
        return hidden

    def tensors(self) -> Tensors:
        """Return ``mean``, ``scale``, and ``layers.I.weight`` and ``layers.I.bias`` of each layer."""
        tensors: Tensors = {"mean": self.mean, "scale": self.scale}
        for place, (weight, bias) in enumerate(self.layers):
            tensors[f"layers.{place}.weight"], tensors[f"layers.{place}.bias"] = weight, bias
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> Layers:
        """Build it of what `tensors` returned; KeyError where something is missing."""
        floats = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
        count = sum(name.endswith(".weight") for name in floats)
        layers = tuple((floats[f"layers.{i}.weight"], floats[f"layers.{i}.bias"]) for i in range(count))
        if not layers:
            raise KeyError("layers.0.weight")
        return cls(floats["mean"], floats["scale"], layers)
