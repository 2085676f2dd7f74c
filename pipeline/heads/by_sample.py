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
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.heads.compute import Standardised
from pipeline.heads.group import Group
from pipeline.heads.logistic import (
    EXACT_DECREASE,
    MAX_ITERATIONS,
    NEAR_DECREASE,
    Fit,
    OnIteration,
    descend,
    memory_for,
)
from pipeline.heads.objective import Coordinates, Objective, Point, Weights

logger = logging.getLogger(__name__)

#: Steps at most before L-BFGS goes on with all rows, and where they are more than so many times the sample, since its
#: penalty is then far from theirs.
_MOST_STEPS, _FEW_STEPS, _MANY_TIMES = 30, 6, 20
#: Loss, over that at the start, above which a limit relative to the start's was relative enough.
_NEARLY_RELATIVE = 0.5
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
    starts: Sequence[tuple[Weights, Weights]],
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
        starts: Weights and biases to start from: the best of them is taken. None: zeros.
        on_iteration: Called with weight and bias after each step and iteration.
    """
    coordinates = Coordinates(correlation, num_classes, 1 / (C * num_rows), rows.device)
    whole = _Whole(Objective(coordinates, rows, num_rows, C, group))
    part = Objective(coordinates, sample, sample_rows, C, group)
    iterations = 0

    def tell(point: Point) -> None:
        nonlocal iterations
        iterations += 1
        if on_iteration is not None:
            on_iteration(*coordinates.weights(point))

    for start in starts or [coordinates.zeros()]:
        whole(coordinates.point(*start))
    walk = _Walk(whole, part, _MOST_STEPS if num_rows <= _MANY_TIMES * sample_rows else _FEW_STEPS, tell)
    if sample.dtype != torch.float32:
        walk.go(NEAR_DECREASE, _FAST_ENOUGH)
        sample.become(torch.float32)
    walk.go(EXACT_DECREASE, EXACT_DECREASE)
    logger.info("The sample has told what it can: all rows have the last word.")
    loss = np.inf
    while whole.loss < _NEARLY_RELATIVE * loss:
        loss = whole.loss
        descend(whole, whole.point, EXACT_DECREASE, MAX_ITERATIONS, loss, tell)
    converged = iterations < MAX_ITERATIONS
    return Fit(C, *coordinates.weights(whole.point), whole.loss, iterations, whole.passes, converged)


class _Walk:
    """Goes down the objective of all rows, from its best point, by steps that are found on the sample.

    Args:
        whole: The objective of all rows.
        part: That of the sample.
        most: Steps.
        tell: Called with the point after each step.
    """

    def __init__(self, whole: _Whole, part: Objective, most: int, tell: Callable[[Point], None]) -> None:
        self._whole, self._part, self._most, self._tell = whole, part, most, tell
        self._num_steps = 0

    def go(self, accuracy: float, enough: float) -> None:
        """Take steps until one takes off less than ``enough`` of the loss, or there are too many.

        Args:
            accuracy: Decrease of the sample's objective in an iteration at which a step is found, relative to the loss.
            enough: Share of the loss.
        """
        mixture, decrease = _Mixture(memory_for(self._whole.point)), np.inf
        while decrease >= enough and self._num_steps < self._most:
            decrease = self._step(mixture, accuracy)

    def _step(self, mixture: _Mixture, accuracy: float) -> float:
        """Take a step, and return the share of the loss that it took off, below 0 where there is none down."""
        before, decrease = self._whole.loss, -np.inf
        for point in mixture.of(self._whole.point, self._end(accuracy)):
            loss, _ = self._whole(point)
            logger.info("A step found on a sample: loss %.6g, before %.6g.", loss, before)
            decrease = 1 - loss / max(before, float(np.finfo(float).tiny))
            if decrease > 0:
                self._num_steps += 1
                self._tell(point)
                break
        return decrease

    def _end(self, accuracy: float) -> Point:
        """Return the minimum of the sample's objective, tilted so that its gradient here is that of all rows."""
        point = self._whole.point
        tilt = self._whole.gradient - self._part(point)[1]

        def tilted(at: Point) -> tuple[float, Point]:
            value, slope = self._part(at)
            return value + float(tilt @ (at - point)), slope + tilt

        return descend(tilted, point, accuracy, MAX_ITERATIONS, self._whole.loss).point


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
        mixed = end - shares @ ends
        mixes = len(ends) > 0
        del ends, steps  # they would stay while all rows are visited
        if mixes:
            yield mixed
            self._ends, self._steps = deque([end], self._ends.maxlen), deque([step], self._steps.maxlen)
        yield end


class _Whole:
    """The objective of all rows, which doesn't visit them again for the best point so far.

    Attributes:
        point: The best one.
        loss: There.
        gradient: There.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.point: Point = np.zeros(0)
        self.loss, self.gradient = np.inf, self.point

    @property
    def passes(self) -> int:
        return self._objective.passes

    def __call__(self, point: Point) -> tuple[float, Point]:
        if np.array_equal(point, self.point):
            return self.loss, self.gradient
        loss, gradient = self._objective(point)
        if loss < self.loss:
            self.point, self.loss, self.gradient = point.copy(), loss, gradient
        return loss, gradient
