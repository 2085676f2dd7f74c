"""The logistic regression's objective, in coordinates in which it is easy to minimise.

Mean cross-entropy plus |W|² / (2 C N) over W of shape (K, D) on standardised features and over the bias, which is not
penalised. L-BFGS takes hundreds of passes where features are correlated, as a network's are. At the start, where all
classes are equally likely, the Hessian of each class is c S + I / (C N) with the features' covariance S and
c = (1 - 1/K) / K, and later it is not far from it. With L the Cholesky factor of that matrix and W = V L⁻¹, the Hessian
by V is about the identity, and some twenty passes are enough.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.heads.compute import Standardised, padded
from pipeline.heads.coordinates import cholesky
from pipeline.heads.group import Group

Weights = NDArray[np.float32]
#: V and the scaled bias, one after the other: float64 of shape (K D + K,).
Point = NDArray[np.float64]


class Coordinates:
    """Stands between weights and points.

    Args:
        correlation: float64 of shape (D, D), the covariance of the standardised features.
        num_classes: K.
        penalty: 1 / (C N).
        device: Where weights are.
    """

    def __init__(
        self, correlation: NDArray[np.float64], num_classes: int, penalty: float, device: torch.device
    ) -> None:
        self.shape = num_classes, len(correlation)
        curvature = (1 - 1 / num_classes) / num_classes
        hessian = torch.from_numpy(curvature * correlation)
        hessian.diagonal().add_(penalty)
        factor = cholesky(hessian, 1e-7 * curvature)
        # Both once for all passes: a product is several times faster than solving a triangular system.
        identity = torch.eye(len(correlation), dtype=factor.dtype)
        self._factor = factor.to(torch.float32).to(device)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        self._inverse = inverse.to(torch.float32).to(device)
        self._bias_scale = curvature**-0.5

    def zeros(self) -> tuple[Weights, Weights]:
        """Return weight and bias of a model that knows nothing."""
        return np.zeros(self.shape, np.float32), np.zeros(self.shape[0], np.float32)

    def point(self, weight: Weights, bias: Weights) -> Point:
        """Return the point that stands for a weight and bias."""
        V = torch.from_numpy(weight).to(self._factor.device) @ self._factor
        return np.concatenate([V.double().cpu().numpy().ravel(), bias.astype(np.float64) / self._bias_scale])

    def weights(self, point: Point) -> tuple[Weights, Weights]:
        """Return the weight and bias that a point stands for."""
        W, b = self.on_device(point)
        return W.cpu().numpy(), b.cpu().numpy()

    def on_device(self, point: Point) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the same as tensors of shape (K, D) and (K,)."""
        K, D = self.shape
        values = torch.from_numpy(np.asarray(point)).to(torch.float32).to(self._factor.device)
        return values[: K * D].view(K, D) @ self._inverse, values[K * D :] * self._bias_scale

    def gradient(self, by_weight: torch.Tensor, by_bias: torch.Tensor) -> Point:
        """Return the gradient by the point, of that by weight and bias."""
        by_V = by_weight @ self._inverse.T
        return torch.cat([by_V.ravel(), by_bias * self._bias_scale]).double().cpu().numpy()


class Objective:
    """The objective and its gradient by the point, for SciPy.

    Args:
        coordinates: Of the points.
        rows: The training rows, or this process's share of them; may be exchanged for the same in another arithmetic.
        num_rows: N, of all processes together.
        C: Inverse strength of the penalty.
        group: Who trains.

    Attributes:
        penalty: 1 / (C N).
        passes: Times that all rows were visited.
    """

    def __init__(self, coordinates: Coordinates, rows: Standardised, num_rows: int, C: float, group: Group) -> None:
        self._coordinates, self.rows, self._N, self._group = coordinates, rows, num_rows, group
        self.penalty, self.passes = 1 / (C * num_rows), 0

    def __call__(self, point: Point) -> tuple[float, Point]:
        """Return the objective and its gradient at a point: one pass over the rows."""
        self.passes += 1
        W, b = self._coordinates.on_device(point)
        loss, of_weight, of_bias = self._sums(W, b)
        self._group.add(loss, of_weight, of_bias)
        value = float(loss) / self._N + 0.5 * self.penalty * float(W.double().square().sum())
        return value, self._coordinates.gradient(of_weight / self._N + self.penalty * W, of_bias / self._N)

    def _sums(self, W: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the sums over all rows of the cross-entropy and of its gradient by weight and bias."""
        (K, D), device, dtype = self._coordinates.shape, self.rows.device, self.rows.dtype
        wide = torch.zeros((padded(K), D), dtype=dtype, device=device)
        wide[:K] = W
        loss = torch.zeros((), dtype=torch.float64, device=device)
        of_weight = torch.zeros((padded(K), D), dtype=torch.float32, device=device)
        of_bias = torch.zeros(K, dtype=torch.float32, device=device)
        for X, y in self.rows.blocks():
            logits = (wide @ X.T)[:K].to(torch.float32) + b[:, None]  # (K, B)
            log_p = torch.log_softmax(logits, dim=0)
            columns = torch.arange(len(y), device=device)
            loss -= log_p[y, columns].sum(dtype=torch.float64)
            residual = log_p.exp_()
            residual[y, columns] -= 1
            of_bias += residual.sum(dim=1)
            side = torch.zeros((padded(K), len(y)), dtype=dtype, device=device)
            side[:K] = residual
            of_weight += side @ X
        return loss, of_weight[:K], of_bias
