"""Multinomial logistic regression (a linear probe): exact, by L-BFGS in coordinates in which it is easy.

Minimises the mean cross-entropy plus |W|² / (2 C N) over W of shape (K, D) on standardised features and over the bias,
which is not penalised: scikit-learn's objective, so C means the same; but of two classes, scikit-learn penalises the
difference of their weights instead of both, so that its C is twice this one.

L-BFGS takes hundreds of passes where features are correlated, as a network's are. At the start, where all classes are
equally likely, the Hessian of each class is c S + I / (C N) with the features' covariance S and c = (1 - 1/K) / K, and
later it is not far from it. With L the Cholesky factor of that matrix and W = V L⁻¹, the Hessian by V is about the
identity, and some twenty passes are enough. The first of them are in bf16 where that is faster; the last few, in
float32, decide.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from pipeline.heads.compute import Standardised, padded
from pipeline.heads.coordinates import cholesky
from pipeline.heads.group import Group

logger = logging.getLogger(__name__)

#: L-BFGS iterations at most, as in the linear-probe protocol of CLIP (Radford et al. 2021, appendix A.3).
MAX_ITERATIONS = 1000
#: Largest component of the gradient at which it stops: scikit-learn's own limit is 1e-4, which leaves up to 1e-2 of the
#: loss where the penalty is weak.
_GRADIENT_LIMIT = 1e-6
#: Decrease of the loss in one iteration at which it stops: in the fast arithmetic, relative to the loss where that is
#: above 1, which is near enough to compare values of C; there, before the exact arithmetic takes over (below it, bf16
#: finds no way down); in the exact one, relative to the loss.
FAST_DECREASE, _NEAR_DECREASE, EXACT_DECREASE = 1e-5, 3e-6, 1e-6
#: Loss above which a limit relative to 1 is as good as one relative to the loss.
_NEARLY_RELATIVE = 0.5
#: Steps of a line search at most. One that finds no way down, since rounding errors are in its way, ends the fit; SciPy
#: would try 20.
_LINE_STEPS = 10
#: Corrections that L-BFGS remembers, SciPy's default; of very many weights, as many as fit into half a GiB, but three.
_MEMORY, _MEMORY_BYTES, _LEAST_MEMORY = 10, 2**29, 3

Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fit:
    """A minimum.

    Args:
        C: Inverse strength of the penalty.
        weight: float32 of shape (K, D), on standardised features.
        bias: float32 of shape (K,).
        loss: The objective there.
        iterations: Of L-BFGS.
        passes: Times that all rows were visited.
        converged: Whether it stopped for one of the limits above, and not for `MAX_ITERATIONS`.
    """

    C: float
    weight: Weights
    bias: Weights
    loss: float
    iterations: int
    passes: int
    converged: bool


def fit(
    rows: Standardised,
    correlation: NDArray[np.float64],
    num_rows: int,
    num_classes: int,
    C: float,
    group: Group,
    start: tuple[Weights, Weights] | None = None,
    exact: Standardised | None = None,
    near: float = FAST_DECREASE,
    last_iterations: int = MAX_ITERATIONS,
    on_iteration: Callable[[Weights, Weights], None] | None = None,
) -> Fit:
    """Minimise the objective.

    Args:
        rows: The training rows, or this process's share of them, in the fast arithmetic.
        correlation: float64 of shape (D, D), the covariance of the standardised features.
        num_rows: N, of all processes together.
        num_classes: K.
        C: Inverse strength of the penalty.
        group: Who trains.
        start: Weight and bias to start from; unset: zeros.
        exact: The same rows in float32, for the last iterations, which may be ``rows``; unset: as near as the fast ones
            come will do.
        near: Decrease of the loss in an iteration at which it stops where ``exact`` is unset.
        last_iterations: In the exact arithmetic after the fast one, at most.
        on_iteration: Called with weight and bias after each iteration.
    """
    problem = _Problem(rows, correlation, num_rows, num_classes, C, group)
    point = problem.coordinates(*(start or problem.zeros()))
    iterations, converged, loss = 0, True, np.inf
    memory = max(_LEAST_MEMORY, min(_MEMORY, _MEMORY_BYTES // (2 * point.nbytes)))
    # Where the first rows are exact themselves, there is but one stage, and a second one where its limit, see below,
    # was far from relative.
    first = near if exact is None else EXACT_DECREASE if exact is rows else _NEAR_DECREASE
    last = MAX_ITERATIONS if exact is rows else last_iterations
    for stage, decrease, most in ((rows, first, MAX_ITERATIONS), (exact, EXACT_DECREASE, last)):
        if stage is None or (stage is problem.rows and _NEARLY_RELATIVE < loss < np.inf):
            continue
        problem.rows = stage
        # SciPy's limit is relative to the loss only where that is above 1.
        problem.unit = min(1.0, loss) or 1.0
        callback = None if on_iteration is None else lambda at: on_iteration(*problem.weights(at))
        with threadpool_limits(1, "blas"):  # of SciPy's own small products, for which threads cost more than they do
            result = minimize(
                problem,
                point,
                jac=True,
                method="L-BFGS-B",
                callback=callback,
                options={
                    "maxiter": most,
                    "maxcor": memory,
                    "maxls": _LINE_STEPS,
                    "gtol": _GRADIENT_LIMIT,
                    "ftol": decrease,
                },
            )
        point, loss = result.x, float(result.fun) * problem.unit
        iterations += int(result.nit)
        converged = result.nit < MAX_ITERATIONS  # otherwise it stopped for rounding errors: no better is to be had
    weight, bias = problem.weights(point)
    return Fit(C, weight, bias, loss, iterations, problem.passes, converged)


class _Problem:
    """The objective and its gradient by V and the scaled bias, as one float64 vector of K D + K values."""

    def __init__(
        self,
        rows: Standardised,
        correlation: NDArray[np.float64],
        num_rows: int,
        num_classes: int,
        C: float,
        group: Group,
    ) -> None:
        self.rows, self._N, self._K, self._group = rows, num_rows, num_classes, group
        self._D = len(correlation)
        self._penalty = 1 / (C * num_rows)
        curvature = (1 - 1 / num_classes) / num_classes
        hessian = torch.from_numpy(curvature * correlation)
        hessian.diagonal().add_(self._penalty)
        factor = cholesky(hessian, 1e-7 * curvature)
        # Both once for all passes: a product is several times faster than solving a triangular system.
        identity = torch.eye(self._D, dtype=factor.dtype)
        self._factor = factor.to(torch.float32).to(rows.device)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        self._inverse = inverse.to(torch.float32).to(rows.device)
        self._bias_scale = curvature**-0.5
        self.passes = 0
        #: What the objective is given in, for SciPy.
        self.unit = 1.0

    def zeros(self) -> tuple[Weights, Weights]:
        """Return weight and bias of a model that knows nothing."""
        return np.zeros((self._K, self._D), np.float32), np.zeros(self._K, np.float32)

    def coordinates(self, weight: Weights, bias: Weights) -> NDArray[np.float64]:
        """Return the point that stands for a weight and bias."""
        V = torch.from_numpy(weight).to(self._factor.device) @ self._factor
        return np.concatenate([V.double().cpu().numpy().ravel(), bias.astype(np.float64) / self._bias_scale])

    def weights(self, point: NDArray[np.float64]) -> tuple[Weights, Weights]:
        """Return the weight and bias that a point stands for."""
        W, b = self._at(point)
        return W.cpu().numpy(), b.cpu().numpy()

    def _at(self, point: NDArray[np.float64]) -> tuple[torch.Tensor, torch.Tensor]:
        values = torch.from_numpy(np.asarray(point)).to(torch.float32).to(self._factor.device)
        V, b = values[: self._K * self._D].view(self._K, self._D), values[self._K * self._D :]
        return V @ self._inverse, b * self._bias_scale

    def __call__(self, point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the objective and its gradient at a point: one pass over the rows."""
        self.passes += 1
        W, b = self._at(point)
        loss, of_weight, of_bias = self._sums(W, b)
        self._group.add(loss, of_weight, of_bias)
        value = float(loss) / self._N + 0.5 * self._penalty * float(W.double().square().sum())
        by_weight = of_weight / self._N + self._penalty * W
        by_V = by_weight @ self._inverse.T
        by_bias = of_bias / self._N * self._bias_scale
        gradient = torch.cat([by_V.ravel(), by_bias]).double().cpu().numpy()
        return value / self.unit, gradient / self.unit

    def _sums(self, W: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the sums over all rows of the cross-entropy and of its gradient by weight and bias."""
        K, device, dtype = self._K, self.rows.device, self.rows.dtype
        wide = torch.zeros((padded(K), self._D), dtype=dtype, device=device)
        wide[:K] = W
        loss = torch.zeros((), dtype=torch.float64, device=device)
        of_weight = torch.zeros((padded(K), self._D), dtype=torch.float32, device=device)
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
