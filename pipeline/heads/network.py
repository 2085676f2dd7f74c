"""A multilayer perceptron in training: all weights in one vector, gradients written out.

One vector makes an optimizer's step one kernel, the sum over workers one message and a checkpoint one tensor. Products
are computed in the fast arithmetic, on a copy of the float32 weights that the optimizer moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import nn

from pipeline.heads.compute import padded
from pipeline.heads.models import LEAKY_SLOPE, Floats


@dataclass(frozen=True, slots=True)
class Loss:
    """The cross-entropy that is minimised.

    Args:
        class_weights: float32 of shape (K,); None where all classes count alike.
        smoothing: Share of the target that is spread over all classes (Szegedy et al. 2016).
    """

    class_weights: torch.Tensor | None = None
    smoothing: float = 0.0

    def weight(self, y: torch.Tensor) -> torch.Tensor:
        """Return what rows count for together, float32 without dimensions: for each one, its class's weight."""
        if self.class_weights is None:
            return torch.tensor(float(len(y)), device=y.device)
        return self.class_weights[y].sum()

    def of(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the sum over rows; logits are float32 of shape (B, K)."""
        return nn.functional.cross_entropy(
            logits, y, weight=self.class_weights, reduction="sum", label_smoothing=self.smoothing
        )


@dataclass
class Network:
    """Linear maps with leaky rectifiers between, and dropout after each of those in training.

    Widths are padded (see `compute.PAD`); what is added starts at zero, has no gradient, and stays zero.

    Args:
        widths: D, the hidden layers' widths, K.
        dropout: Share of hidden values that are put to zero in training.
        device: Where it is.
        dtype: Of products.
    """

    widths: Sequence[int]
    dropout: float
    device: torch.device
    dtype: torch.dtype
    theta: torch.Tensor = field(init=False)
    _fast: torch.Tensor = field(init=False)
    _by_fast: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        D, *others = self.widths
        self._sides = list(pairwise((D, *map(padded, others))))
        self._sizes = [part for wide, narrow in self._sides for part in (wide * narrow, narrow)]
        self.theta = torch.zeros(sum(self._sizes), device=self.device)
        self._fast = torch.zeros_like(self.theta, dtype=self.dtype)
        self._by_fast = torch.zeros_like(self._fast)
        self.gradient = self.theta.grad = torch.zeros_like(self.theta)

    def initialise(self, seed: int) -> None:
        """Draw weights as PyTorch's linear maps do (He et al. 2015, uniform, a = sqrt(5)), the same on every device."""
        random = torch.Generator().manual_seed(seed)
        for weight, bias in self.parts_of(self.theta):
            bound = weight.shape[1] ** -0.5
            for part in (weight, bias):
                part.copy_(torch.empty(part.shape).uniform_(-bound, bound, generator=random))
        self.refresh()

    def load(self, layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Take the weights and biases of other layers of the same shapes."""
        for mine, theirs in zip(self.parts_of(self.theta), layers, strict=True):
            for part, value in zip(mine, theirs, strict=True):
                part.copy_(value)
        self.refresh()

    def layers(self) -> tuple[tuple[Floats, Floats], ...]:
        """Return the weight of shape (out, in) and the bias of each linear map, float32."""
        return tuple(
            (weight.cpu().numpy().copy(), bias.cpu().numpy().copy()) for weight, bias in self.parts_of(self.theta)
        )

    def refresh(self) -> None:
        """Take over what the optimizer has done to ``theta``."""
        self._fast.copy_(self.theta)

    def logits(self, X: torch.Tensor) -> torch.Tensor:
        """Return float32 of shape (B, K) for X of shape (B, D), in the fast arithmetic."""
        return self._forward(X, None)[-1][:, : self.widths[-1]].to(torch.float32)

    def differentiate(
        self, X: torch.Tensor, y: torch.Tensor, loss: Loss, weight: torch.Tensor, random: torch.Generator
    ) -> torch.Tensor:
        """Put the gradient of the loss over ``weight`` into `gradient`, and return the sum of the loss.

        Args:
            X: Features of shape (B, D) in the fast arithmetic.
            y: int64 of shape (B,).
            loss: What is minimised.
            weight: What the whole batch's rows count for together.
            random: For dropout.
        """
        values = self._forward(X, random)
        K = self.widths[-1]
        logits = values[-1][:, :K].to(torch.float32).requires_grad_()
        total = loss.of(logits, y)
        (by_logits,) = torch.autograd.grad(total, logits)
        by_output = torch.zeros_like(values[-1])
        by_output[:, :K] = by_logits / weight
        weights, gradients = (self._parts(vector) for vector in (self._fast, self._by_fast))
        for place in reversed(range(len(weights))):
            torch.mm(by_output.T, values[place], out=gradients[place][0])
            torch.sum(by_output, dim=0, out=gradients[place][1])
            if place:
                by_output = by_output @ weights[place][0]
                if self.dropout:  # what was put to zero has no slope, the rest was scaled up
                    by_output *= (values[place] != 0) / self._kept
                by_output = torch.ops.aten.leaky_relu_backward(by_output, values[place], LEAKY_SLOPE, True)
        self.gradient.copy_(self._by_fast)
        return total.detach()

    def _forward(self, X: torch.Tensor, random: torch.Generator | None) -> list[torch.Tensor]:
        """Return X, the hidden layers' values and the padded logits."""
        values = [X]
        layers = self._parts(self._fast)
        for place, (weight, bias) in enumerate(layers, start=1):
            value = torch.addmm(bias, values[-1], weight.T)
            if place < len(layers):
                value = nn.functional.leaky_relu(value, LEAKY_SLOPE, inplace=True)
                if self.dropout and random is not None:
                    value = value.mul_(self._keeps(value, random)).div_(self._kept)
            values.append(value)
        return values

    @property
    def _kept(self) -> float:
        """The share of hidden values that dropout keeps, in steps of 1/256."""
        return 1 - round(256 * self.dropout) / 256

    def _keeps(self, value: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Return which values dropout keeps: one random byte for each, far faster than one random float for each."""
        count = value.numel()
        whole = torch.empty(-(-count // 8), dtype=torch.int64, device=value.device)
        drawn = whole.random_(-(2**63), None, generator=random).view(torch.uint8)[:count]
        return drawn.view(value.shape) >= round(256 * self.dropout)

    def _parts(self, vector: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the padded weight and bias of each linear map: views of a vector."""
        parts = iter(torch.split(vector, self._sizes))
        return [(next(parts).view(narrow, wide), next(parts)) for wide, narrow in self._sides]

    def parts_of(self, vector: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the weight and bias of each linear map, without what they are padded with: views of a vector."""
        sizes = pairwise(self.widths)
        return [
            (weight[:narrow, :wide], bias[:narrow])
            for (weight, bias), (wide, narrow) in zip(self._parts(vector), sizes, strict=True)
        ]
