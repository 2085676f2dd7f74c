"""Logistic regression on rows that are streamed: few passes over all of them, many over a sample in memory.

A pass over rows that don't fit into memory takes as long as reading and converting them, L-BFGS wants dozens, and all
but a few are spent on what a sample of the rows would tell as well. So each step is found on the sample: its own
objective, tilted by a linear term so that at the present point its gradient is that of all rows, is minimised, and the
minimum is the next point (DANE: Shamir, Srebro and Zhang 2014, "Communication-efficient distributed optimization using
an approximate Newton-type method"; here with one sample instead of one for each machine). The point that such steps
don't leave is the minimum over all rows, whatever the sample; each step leaves of the distance as much as the sample's
Hessian differs from that of all rows.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from pipeline.heads.compute import Standardised
from pipeline.heads.group import Group
from pipeline.heads.logistic import (
    EXACT_DECREASE,
    LAST_ITERATIONS,
    MAX_ITERATIONS,
    NEAR_DECREASE,
    Fit,
    OnIteration,
    descend,
)
from pipeline.heads.objective import Coordinates, Objective, Point, Weights

logger = logging.getLogger(__name__)

#: Steps at most, and the share of the loss that one takes off at which the sample has told what it can.
_MOST_STEPS, _ENOUGH = 20, 1e-5


def fit_by_sample(
    rows: Standardised,
    num_rows: int,
    sample: Standardised,
    sample_rows: int,
    correlation: NDArray[np.float64],
    num_classes: int,
    C: float,
    group: Group,
    start: tuple[Weights, Weights],
    on_iteration: OnIteration | None = None,
) -> Fit:
    """Minimise the objective over all rows.

    Where the sample is too small to tell the way, the steps end, and L-BFGS goes on with all rows.

    Args:
        rows: The training rows, or this process's share of them, in float32.
        num_rows: N, of all processes together.
        sample: Some of them, in the fast arithmetic, standardised alike.
        sample_rows: How many, of all processes together.
        correlation: float64 of shape (D, D), the covariance of the standardised features.
        num_classes: K.
        C: Inverse strength of the penalty.
        group: Who trains.
        start: Weight and bias to start from.
        on_iteration: Called with weight and bias after each step and iteration.
    """
    coordinates = Coordinates(correlation, num_classes, 1 / (C * num_rows), rows.device)
    whole = _Remembered(Objective(coordinates, rows, num_rows, group))
    part = Objective(coordinates, sample, sample_rows, group)
    point = coordinates.point(*start)
    loss, gradient = whole(point)
    steps, near = 0, False
    while not near and steps < _MOST_STEPS:
        next_point = _step(part, point, gradient)
        next_loss, next_gradient = whole(next_point)
        steps += 1
        logger.info("Step %d, found on %d rows: loss %.6f, before %.6f.", steps, sample_rows, next_loss, loss)
        near = abs(loss - next_loss) < _ENOUGH * loss
        if not next_loss < loss:
            break
        point, loss, gradient = next_point, next_loss, next_gradient
        if on_iteration is not None:
            on_iteration(*coordinates.weights(point))
    callback = None if on_iteration is None else lambda at: on_iteration(*coordinates.weights(at))
    most = LAST_ITERATIONS if near else MAX_ITERATIONS
    whole.unit = min(1.0, loss) or 1.0
    result = descend(whole, point, EXACT_DECREASE, most, callback)
    weight, bias = coordinates.weights(result.x)
    iterations = steps + int(result.nit)
    return Fit(C, weight, bias, float(result.fun) * whole.unit, iterations, whole.passes, result.nit < MAX_ITERATIONS)


def _step(part: Objective, point: Point, gradient: Point) -> Point:
    """Return the minimum of the sample's objective, tilted so that its gradient at a point is a given one."""
    _, own = part(point)
    tilt = gradient - own

    def tilted(at: Point) -> tuple[float, Point]:
        value, slope = part(at)
        return value + float(tilt @ (at - point)), slope + tilt

    result: Point = descend(tilted, point, NEAR_DECREASE, MAX_ITERATIONS).x
    return result


class _Remembered:
    """An objective that doesn't visit the rows again for the point where it has just been: L-BFGS begins there."""

    def __init__(self, objective: Objective) -> None:
        self._objective, self.unit = objective, 1.0
        self._point: Point | None = None
        self._found: tuple[float, Point] = 0.0, np.zeros(0)

    @property
    def passes(self) -> int:
        return self._objective.passes

    def __call__(self, point: Point) -> tuple[float, Point]:
        if self._point is None or not np.array_equal(point, self._point):
            self._point, self._found = point.copy(), self._objective(point)
        value, gradient = self._found
        return value / self.unit, gradient / self.unit
