"""Means, covariances and class means: exact, whatever the scale, the order and who holds the rows."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.heads.features import MemoryFeatures
from pipeline.heads.moments import Moments, measure
from tests.heads.clouds import CPU, clouds, measured
from tests.heads.groups import together


def check(moments: Moments, X: np.ndarray, y: np.ndarray, num_classes: int) -> None:
    wide = X.astype(np.float64)
    deviation = wide.std(axis=0)
    assert moments.num_rows == len(X)
    np.testing.assert_allclose((moments.mean - wide.mean(axis=0)) / deviation, 0, atol=2e-5)
    covariance = np.cov(wide, rowvar=False, bias=True) / np.outer(deviation, deviation)
    np.testing.assert_allclose(moments.covariance / np.outer(deviation, deviation), covariance, atol=2e-5)
    np.testing.assert_array_equal(moments.class_counts, np.bincount(y, minlength=num_classes))
    for place in np.unique(y):
        of_class = wide[y == place].mean(axis=0)
        np.testing.assert_allclose((moments.class_means[place] - of_class) / deviation, 0, atol=1e-4)  # sums in float32


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_measure__as_numpy_does(offset: float, dtype: type) -> None:
    X, y = clouds(20_000, 6, 12, seed=0)  # several blocks
    X = (X / X.std(axis=0) + offset).astype(dtype)
    check(measured(X, y, 6), X, y, 6)
    order = np.argsort(y)  # as a table of folders is: the first block is of one class
    check(measured(X[order], y[order], 6), X, y, 6)


def test_measure__a_class_without_rows_has_zeros() -> None:
    X, y = clouds(100, 3, 4, seed=0)
    moments = measured(X, y, 5)
    check(moments, X, y, 5)
    assert not moments.class_means[3:].any()


def test_measure__shares_of_the_rows_add_up() -> None:
    X, y = clouds(500, 6, 12, seed=0)
    bounds = [(0, 300), (300, 300), (300, 500)]

    def share(group: object) -> Moments:
        start, end = bounds[group.rank]  # type: ignore[attr-defined]
        return measure(MemoryFeatures(X[start:end], y[start:end]), 6, group, CPU)  # type: ignore[arg-type]

    for moments in together(3, share):
        check(moments, X, y, 6)


def test_standardisation__as_numpy_does_but_for_constant_features() -> None:
    X, y = clouds(200, 3, 6, seed=0)
    X[:, 2], X[:, 4], X[:, 5] = 5, 0, 1e6
    X[::2, 5] += 1e-3  # lost in float32
    mean, scale = measured(X, y, 3).standardisation()
    assert mean.dtype == scale.dtype == np.float32
    np.testing.assert_allclose(mean, X.astype(np.float64).mean(axis=0), rtol=1e-6)
    assert scale[[2, 4, 5]].tolist() == [1, 1, 1]
    np.testing.assert_allclose(scale[[0, 1, 3]], X[:, [0, 1, 3]].astype(np.float64).std(axis=0), rtol=1e-5)


def test_standardisation__a_deviation_of_rounding_errors_is_none() -> None:
    X = np.full((100, 1), 1e6, np.float32)
    X[0] = np.nextafter(X[0], np.float32(2e6))  # by one bit
    assert measured(X, np.zeros(100, np.int64), 1).standardisation()[1].tolist() == [1]


def test_correlation__is_that_of_standardised_features() -> None:
    X, y = clouds(200, 3, 6, seed=0)
    X[:, 2] = 5
    moments = measured(X, y, 3)
    mean, scale = moments.standardisation()
    Z = (X.astype(np.float64) - mean) / scale
    np.testing.assert_allclose(moments.correlation(scale), Z.T @ Z / len(Z), atol=2e-5)
