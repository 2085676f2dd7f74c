"""Logistic regression on rows that are streamed: few passes over all of them, many over a sample in memory.

A pass over rows that don't fit into memory takes as long as reading and converting them, L-BFGS wants dozens, and all
but a few are spent on what a sample of the rows would tell as well. So each step is found on the sample: its own
objective, tilted by a linear term so that at the present point its gradient is that of all rows, is minimised, and the
minimum is the next point (DANE: Shamir, Srebro and Zhang 2014, "Communication-efficient distributed optimization using
an approximate Newton-type method"; here with one sample instead of one for each machine). The point that such steps
don't leave is the minimum over all rows, whatever the sample; each step leaves of the distance as much as the sample's
Hessian differs from that of all rows. The sample keeps the penalty that belongs to its number of rows, without which it
would be fitted to its last row, and leap; and the steps are mixed, which takes a third of them.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch
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
    memory_for,
)
from pipeline.heads.objective import Coordinates, Objective, Point, Weights

logger = logging.getLogger(__name__)

#: Steps at most before L-BFGS goes on with all rows.
_MOST_STEPS = 30
#: Passes over all rows after short steps, at most: a line search that rounding errors keep from ending would take more.
_LAST_PASSES = 8
#: Share of the loss that a step takes off from which on the fast arithmetic sees no further.
_FAST_ENOUGH = 1e-4
#: Squared singular values of the differences between steps below this share of the largest are rounding errors.
_RANK = 1e-8


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
        sample: Some of them, in the fast arithmetic, standardised alike; in float32 at the end.
        sample_rows: How many, of all processes together.
        correlation: float64 of shape (D, D), the covariance of the standardised features.
        num_classes: K.
        C: Inverse strength of the penalty.
        group: Who trains.
        start: Weight and bias to start from.
        on_iteration: Called with weight and bias after each step and iteration.
    """
    coordinates = Coordinates(correlation, num_classes, 1 / (C * num_rows), rows.device)
    whole = _Remembered(Objective(coordinates, rows, num_rows, C, group))
    part = Objective(coordinates, sample, sample_rows, C, group)
    tell = None if on_iteration is None else lambda at: on_iteration(*coordinates.weights(at))
    walk = _Walk(whole, part, coordinates.point(*start), tell)
    if sample.dtype != torch.float32:
        walk.go(NEAR_DECREASE, _FAST_ENOUGH)
        sample.become(torch.float32)
    near = abs(walk.go(EXACT_DECREASE, EXACT_DECREASE)) < EXACT_DECREASE
    logger.info("The sample has told %s: going on with all rows.", "the way" if near else "what it can")
    # Where the steps have become short, all rows have the last word: it may be that the sample was to blame for that.
    most, most_calls = (LAST_ITERATIONS, _LAST_PASSES) if near else (MAX_ITERATIONS, None)
    whole.unit = min(1.0, walk.loss) or 1.0
    result = descend(whole, walk.point, EXACT_DECREASE, most, most_calls, tell)
    iterations, converged = walk.num_steps + int(result.nit), result.nit < MAX_ITERATIONS
    return Fit(C, *coordinates.weights(result.x), float(result.fun) * whole.unit, iterations, whole.passes, converged)


class _Walk:
    """Goes down the objective of all rows by steps that are found on the sample.

    Args:
        whole: The objective of all rows.
        part: That of the sample.
        point: Where it begins.
        tell: Called with the point after each step.

    Attributes:
        point: Where it is.
        loss: The objective of all rows there.
        num_steps: So far.
    """

    def __init__(self, whole: _Remembered, part: Objective, point: Point, tell: Callable[[Point], None] | None) -> None:
        self._whole, self._part, self._tell = whole, part, tell
        self.point, self.num_steps = point, 0
        self.loss, self._gradient = whole(point)

    def go(self, accuracy: float, enough: float) -> float:
        """Take steps until one takes off less than ``enough`` of the loss, or there are too many.

        Args:
            accuracy: Decrease of the sample's objective in an iteration at which a step is found.
            enough: Share of the loss.

        Returns:
            What the last step took off; minus infinity where it went up, and wasn't taken.
        """
        mixture, decrease = _Mixture(memory_for(self.point)), np.inf
        while decrease >= enough and self.num_steps < _MOST_STEPS:
            decrease = self._step(mixture, accuracy)
        return decrease

    def _step(self, mixture: _Mixture, accuracy: float) -> float:
        for point in mixture.of(self.point, self._end(accuracy)):
            loss, gradient = self._whole(point)
            logger.info("A step found on a sample: loss %.6f, before %.6f.", loss, self.loss)
            decrease = 1 - loss / max(self.loss, float(np.finfo(float).tiny))
            if decrease > -EXACT_DECREASE:
                self.point, self.loss, self._gradient = point, loss, gradient
                self.num_steps += 1
                if self._tell is not None:
                    self._tell(point)
                return decrease
        return -np.inf

    def _end(self, accuracy: float) -> Point:
        """Return the minimum of the sample's objective, tilted so that its gradient here is that of all rows."""
        point = self.point
        tilt = self._gradient - self._part(point)[1]

        def tilted(at: Point) -> tuple[float, Point]:
            value, slope = self._part(at)
            return value + float(tilt @ (at - point)), slope + tilt

        end: Point = descend(tilted, point, accuracy, MAX_ITERATIONS).x
        return end


class _Mixture:
    """Mixes the steps so far (Anderson 1965, "Iterative procedures for nonlinear integral equations").

    Each step alone leaves the same share of the distance in the same directions, which the differences between steps
    tell: of the combinations of the last points, that is taken whose step would be the shortest.

    Args:
        memory: Steps that are remembered.
    """

    def __init__(self, memory: int) -> None:
        self._ends, self._steps = deque[Point](maxlen=memory), deque[Point](maxlen=memory)

    def of(self, point: Point, end: Point) -> Iterator[Point]:
        """Yield where to go from a point whose step ends at another: the mixture, then that end alone."""
        step = end - point
        ends = np.array([end - other for other in self._ends]).reshape(-1, len(point))
        steps = np.array([step - other for other in self._steps]).reshape(-1, len(point))
        self._ends.append(end)
        self._steps.append(step)
        shares = np.linalg.lstsq(steps @ steps.T, steps @ step, rcond=_RANK)[0]
        if len(ends):
            yield end - shares @ ends
            self._ends, self._steps = deque([end], self._ends.maxlen), deque([step], self._steps.maxlen)
        yield end


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
