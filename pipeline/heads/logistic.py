"""Multinomial logistic regression (a linear probe): exact, by L-BFGS.

Minimises scikit-learn's objective (`pipeline.heads.objective`), so C means the same; but of two classes, scikit-learn
penalises the difference of their weights instead of both, so that its C is twice this one. The first passes are in bf16
where that is faster; the last few, in float32, decide.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from pipeline.heads.compute import Standardised
from pipeline.heads.group import Group
from pipeline.heads.objective import Coordinates, Objective, Point, Weights

logger = logging.getLogger(__name__)

#: L-BFGS iterations at most, as in the linear-probe protocol of CLIP (Radford et al. 2021, appendix A.3).
MAX_ITERATIONS = 1000
#: Largest component of the gradient at which it stops: scikit-learn's own limit is 1e-4, which leaves up to 1e-2 of the
#: loss where the penalty is weak.
_GRADIENT_LIMIT = 1e-6
#: Decrease of the loss in one iteration at which it stops: in the fast arithmetic, relative to the loss where that is
#: above 1, which is near enough to compare values of C; there, before the exact arithmetic takes over (below it, bf16
#: finds no way down); in the exact one, relative to the loss.
FAST_DECREASE, NEAR_DECREASE, EXACT_DECREASE = 1e-5, 3e-6, 1e-6
#: Loss above which a limit relative to 1 is as good as one relative to the loss.
_NEARLY_RELATIVE = 0.5
#: Iterations in the exact arithmetic after the fast one, at most: the two minima are some 4e-5 of the loss apart.
LAST_ITERATIONS = 5
#: Steps of a line search at most. One that finds no way down, since rounding errors are in its way, ends the fit; SciPy
#: would try 20.
_LINE_STEPS = 10
#: Points in a row, none of them better than one before, after which it ends for the same reason: after a line search in
#: vain, SciPy tries another one, down the gradient.
_PATIENCE = 5
#: Corrections that L-BFGS remembers, SciPy's default; of very many weights, as many as fit into half a GiB, but three.
_MEMORY, _MEMORY_BYTES, _LEAST_MEMORY = 10, 2**29, 3

#: What is called with weight and bias after each iteration.
OnIteration = Callable[[Weights, Weights], None]


@dataclass(frozen=True, slots=True)
class Fit:
    """A minimum.

    Args:
        C: Inverse strength of the penalty.
        weight: float32 of shape (K, D), on standardised features.
        bias: float32 of shape (K,).
        loss: The objective there.
        iterations: Of L-BFGS, and of steps found on a sample.
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
    on_iteration: OnIteration | None = None,
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
    coordinates = Coordinates(correlation, num_classes, 1 / (C * num_rows), rows.device)
    objective = Objective(coordinates, rows, num_rows, C, group)
    point = coordinates.point(*(start or coordinates.zeros()))
    callback = None if on_iteration is None else lambda at: on_iteration(*coordinates.weights(at))
    iterations, converged, loss = 0, True, np.inf
    # Where the first rows are exact themselves, there is but one stage, and a second one where its limit, see below,
    # was far from relative.
    first = near if exact is None else EXACT_DECREASE if exact is rows else NEAR_DECREASE
    last = MAX_ITERATIONS if exact is rows else last_iterations
    for stage, decrease, most in ((rows, first, MAX_ITERATIONS), (exact, EXACT_DECREASE, last)):
        if stage is None or (stage is objective.rows and _NEARLY_RELATIVE < loss < np.inf):
            continue
        objective.rows = stage
        found = descend(objective, point, decrease, most, loss, callback)
        point, loss = found.point, found.value
        iterations += found.iterations
        converged = found.iterations < MAX_ITERATIONS  # else it stopped for rounding errors: no better is to be had
    weight, bias = coordinates.weights(point)
    return Fit(C, weight, bias, loss, iterations, objective.passes, converged)


@dataclass(frozen=True, slots=True)
class Descent:
    """Where L-BFGS came.

    Args:
        point: The best one that it visited.
        value: Of the objective there.
        iterations: That it took.
    """

    point: Point
    value: float
    iterations: int


def descend(
    objective: Callable[[Point], tuple[float, Point]],
    point: Point,
    decrease: float,
    most: int,
    loss: float = np.inf,
    callback: Callable[[Point], None] | None = None,
) -> Descent:
    """Minimise by L-BFGS.

    Args:
        objective: Returns a value and its gradient.
        point: Where to start.
        decrease: In one iteration, at which it stops, relative to the loss.
        most: Iterations.
        loss: About the value to be expected; unset: 1, or whatever is above it.
        callback: Called with the point after each.
    """
    # SciPy's limits are relative to the value only where that is above 1, so it is given in units of a smaller one.
    best, iterations = _Best(objective, min(1.0, loss) or 1.0), 0

    def count(at: Point) -> None:
        nonlocal iterations
        iterations += 1
        if callback is not None:
            callback(at)

    options = {
        "maxiter": most,
        "maxcor": memory_for(point),
        "maxls": _LINE_STEPS,
        "gtol": _GRADIENT_LIMIT,
        "ftol": decrease,
    }
    # SciPy's own products are small, and threads cost more than they do.
    with threadpool_limits(1, "blas"), suppress(_NoWayDown):
        minimize(best, point, jac=True, method="L-BFGS-B", callback=count, options=options)
    return Descent(best.point, best.value, iterations)


def memory_for(point: Point) -> int:
    """Return how many steps are remembered."""
    return max(_LEAST_MEMORY, min(_MEMORY, _MEMORY_BYTES // (2 * point.nbytes)))


class _NoWayDown(Exception):
    """Rounding errors are in the way of a line search."""


class _Best:
    """An objective, in units for SciPy, that remembers its best point, and loses patience where there is no better."""

    def __init__(self, objective: Callable[[Point], tuple[float, Point]], unit: float) -> None:
        self._objective, self._unit, self._num_fruitless = objective, unit, 0
        self.point, self.value = np.zeros(0), np.inf

    def __call__(self, point: Point) -> tuple[float, Point]:
        if self._num_fruitless == _PATIENCE:
            raise _NoWayDown
        value, gradient = self._objective(point)
        self._num_fruitless += 1
        if value < self.value:
            self.point, self.value, self._num_fruitless = point.copy(), value, 0
        return value / self._unit, gradient / self._unit
