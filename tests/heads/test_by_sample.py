"""Steps found on a sample end at the minimum over all rows, whatever the sample is like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.heads import logistic
from pipeline.heads.by_sample import fit_by_sample
from pipeline.heads.features import MemoryFeatures
from pipeline.heads.group import Alone
from pipeline.heads.logistic import Fit
from pipeline.heads.moments import measure
from tests.heads.clouds import CPU, clouds, measured, standardised
from tests.heads.groups import together

COUNT, NUM_CLASSES, DIM = 6000, 7, 20


@pytest.fixture(scope="module")
def points() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return clouds(COUNT, NUM_CLASSES, DIM, seed=1, spread=2.5)


def whole(X: NDArray[np.float32], y: NDArray[np.int64], C: float) -> Fit:
    moments = measured(X, y, NUM_CLASSES)
    rows = standardised(X, y, moments, torch.float32)
    correlation = moments.correlation(moments.standardisation()[1])
    return logistic.fit(rows, correlation, len(y), NUM_CLASSES, C, Alone(), exact=rows)


def sampled(
    X: NDArray[np.float32],
    y: NDArray[np.int64],
    C: float,
    sample: NDArray[np.int64],
    dtype: torch.dtype = torch.float32,
    **more: Any,
) -> Fit:
    """Fit by steps found on the rows of a sample, from zeros."""
    moments = measured(X, y, NUM_CLASSES)
    return fit_by_sample(
        standardised(X, y, moments, torch.float32),
        len(y),
        standardised(X[sample], y[sample], moments, dtype),
        len(sample),
        moments.correlation(moments.standardisation()[1]),
        NUM_CLASSES,
        C,
        Alone(),
        [],
        **more,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0, 100.0])
def test_fit_by_sample__is_the_minimum_over_all_rows(points: Any, C: float, dtype: torch.dtype) -> None:
    expected = whole(*points, C)
    found = sampled(*points, C, np.arange(0, COUNT, 8), dtype)
    assert found.converged
    assert found.loss <= expected.loss * (1 + 2e-6)
    np.testing.assert_allclose(found.weight, expected.weight, atol=2e-2 * np.abs(expected.weight).max())
    assert found.passes < 14


def test_fit_by_sample__takes_few_passes(points: Any) -> None:
    """Without a penalty that would make it easy."""
    expected = whole(*points, 1e4)
    found = sampled(*points, 1e4, np.arange(0, COUNT, 4))
    assert found.loss <= expected.loss * (1 + 2e-6)
    assert found.passes < 0.75 * expected.passes


@pytest.mark.parametrize(
    "sample",
    [np.arange(12), np.arange(200), np.zeros(500, np.int64)],
    ids=["fewer rows than features", "few", "one row, again and again"],
)
def test_fit_by_sample__of_a_sample_that_misleads(points: Any, sample: NDArray[np.int64]) -> None:
    expected = whole(*points, 1.0)
    found = sampled(*points, 1.0, sample)
    assert found.converged
    assert found.loss <= expected.loss * (1 + 2e-6)


def test_fit_by_sample__of_a_sample_that_lacks_classes(points: Any) -> None:
    X, y = points
    expected = whole(X, y, 1.0)
    found = sampled(X, y, 1.0, np.flatnonzero(y < 3)[:700])
    assert found.loss <= expected.loss * (1 + 2e-6)


def test_fit_by_sample__from_the_minimum_it_stays_there(points: Any) -> None:
    expected = whole(*points, 1.0)
    X, y = points
    moments = measured(X, y, NUM_CLASSES)
    correlation = moments.correlation(moments.standardisation()[1])
    rows, part = standardised(X, y, moments, torch.float32), standardised(X[:800], y[:800], moments, torch.float32)
    start = expected.weight, expected.bias
    found = fit_by_sample(rows, COUNT, part, 800, correlation, NUM_CLASSES, 1.0, Alone(), [start])
    assert found.loss == pytest.approx(expected.loss, rel=2e-6)
    assert found.passes <= 5


def test_fit_by_sample__tells_of_each_step(points: Any) -> None:
    seen: list[NDArray[np.float32]] = []
    found = sampled(*points, 1.0, np.arange(0, COUNT, 8), on_iteration=lambda weight, bias: seen.append(weight))
    assert len(seen) == found.iterations
    assert len(seen) >= 5  # the steps as well, not only the iterations at the end
    np.testing.assert_array_equal(seen[-1], found.weight)


def test_fit_by_sample__shares_of_the_rows_give_the_same_minimum(points: Any) -> None:
    X, y = points
    bounds, samples = [(0, 4200), (4200, COUNT)], [(0, 500), (4200, 4500)]

    def share(group: Any) -> Fit:
        start, end = bounds[group.rank]
        first, last = samples[group.rank]
        moments = measure(MemoryFeatures(X[start:end], y[start:end]), NUM_CLASSES, group, CPU)
        correlation = moments.correlation(moments.standardisation()[1])
        return fit_by_sample(
            standardised(X[start:end], y[start:end], moments, torch.float32),
            COUNT,
            standardised(X[first:last], y[first:last], moments, torch.float32),
            800,
            correlation,
            NUM_CLASSES,
            1.0,
            group,
            [],
        )

    alone = whole(X, y, 1.0)
    one, other = together(2, share)
    np.testing.assert_array_equal(one.weight, other.weight)
    assert one.loss <= alone.loss * (1 + 2e-6)


@pytest.mark.parametrize("C", [1e2, 1e6])
def test_fit_by_sample__of_classes_that_lie_apart(C: float) -> None:
    """Losses near zero, to which limits have to be relative."""
    X, y = clouds(2000, 3, 5, seed=1, spread=0.05)
    moments = measured(X, y, 3)
    correlation = moments.correlation(moments.standardisation()[1])
    rows = standardised(X, y, moments, torch.float32)
    expected = logistic.fit(rows, correlation, len(y), 3, C, Alone(), exact=rows)
    part = standardised(X[:400], y[:400], moments, torch.float32)
    found = fit_by_sample(rows, len(y), part, 400, correlation, 3, C, Alone(), [])
    assert found.loss <= expected.loss * (1 + 1e-3)
    assert found.passes < 2 * expected.passes
