"""Backbone and head as one PyTorch module: what is exported."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.backbones import Backbone
from pipeline.engines.normalised import Normalised
from pipeline.errors import ConfigError
from pipeline.heads import Head
from pipeline.heads.models import LEAKY_SLOPE, Layers, Model
from pipeline.heads.neighbours import LEAST_SHARE, Neighbours


class Program(nn.Module):
    """From pixels to probabilities: normalisation, backbone, head, temperature, softmax.

    Forward takes uint8 of shape (B, H, W, 3) in the preprocessing's channel order, and returns probabilities, float32
    of shape (B, K), and embeddings, float32 of shape (B, D).
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone, self.scores = Normalised(backbone), _scores(head.model)
        self.temperature = head.temperature
        self.eval()

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Classify."""
        embeddings = self.backbone(pixels)
        return torch.softmax(self.scores(embeddings) / self.temperature, dim=1), embeddings


def _scores(model: Model) -> nn.Module:
    if isinstance(model, Layers):
        return _Layers(model)
    if isinstance(model, Neighbours):
        return _Neighbours(model)
    raise ConfigError(f"Heads of the type {type(model).__name__} can't be exported.")


def _tensor(array: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.array(array))  # a copy: what was read from a file may be read-only


class _Layers(nn.Module):
    """`pipeline.heads.models.Layers` in PyTorch."""

    def __init__(self, model: Layers) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("mean", _tensor(model.mean))
        self.register_buffer("scale", _tensor(model.scale))
        self.maps = nn.ModuleList()
        for weight, bias in model.layers:
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.load_state_dict({"weight": _tensor(weight), "bias": _tensor(bias)})
            self.maps.append(linear.requires_grad_(False))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        hidden = (X - self.mean) / self.scale
        for place, linear in enumerate(self.maps):
            if place:
                hidden = nn.functional.leaky_relu(hidden, LEAKY_SLOPE)
            hidden = linear(hidden)
        return hidden


class _Neighbours(nn.Module):
    """`pipeline.heads.neighbours.Neighbours` in PyTorch: one product with the whole bank, and the k largest of it.

    Of equal similarities at the end of the k, another one may be taken than the earliest.
    """

    def __init__(self, model: Neighbours) -> None:
        super().__init__()
        self.bank: torch.Tensor
        self.places: torch.Tensor
        self.register_buffer("bank", _tensor(model.bank))
        self.register_buffer("places", _tensor(model.places).to(torch.int64))
        self.k, self.tau, self.num_classes = min(model.k, len(model.bank)), model.tau, model.num_classes

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(X, dim=1, keepdim=True)
        unit = X / torch.where(length > 0, length, torch.ones_like(length))
        similarity, nearest = torch.topk(unit @ self.bank.to(torch.float32).T, self.k, dim=1)
        weights = torch.exp((similarity - similarity[:, :1]) / self.tau)
        votes = weights.new_zeros(X.shape[0], self.num_classes).scatter_add(1, self.places[nearest], weights)
        return torch.log(torch.clamp(votes / votes.sum(dim=1, keepdim=True), min=LEAST_SHARE))
