"""Ridge regression: the textbook's closed form, scikit-learn's, and the choice on validation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from pipeline.heads.fit import fit_head
from pipeline.heads.models import Layers
from pipeline.heads.ridge import ALPHA_GRID, RidgePath
from tests.heads.clouds import clouds, measured, task


def difficult(kind: str) -> tuple[np.ndarray, np.ndarray]:
    if kind == "wide":
        return clouds(60, 5, 100, seed=1, spread=3)
    X, y = clouds(500, 5, 12, seed=1, spread=3)
    if kind == "dependent":
        X[:, 3], X[:, 4] = 7, X[:, 5]
    return X, y


@pytest.mark.parametrize("alpha", [1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("kind", ["plain", "dependent", "wide"])
def test_solve__is_the_closed_form(kind: str, alpha: float) -> None:
    X, y = difficult(kind)
    moments = measured(X, y, 6)  # of the sixth class there is no row
    mean, scale = moments.standardisation()
    weight, bias = RidgePath(moments, scale).solve(alpha)
    Z = (X.astype(np.float64) - mean) / scale
    Z -= Z.mean(axis=0)
    Y = np.eye(6)[y]
    N, D = Z.shape
    textbook = np.linalg.solve(Z.T @ Z / N + alpha * np.eye(D), Z.T @ (Y - Y.mean(axis=0)) / N).T
    scikit_learns = Ridge(alpha=alpha * N).fit(Z, Y)
    for expected in (textbook, scikit_learns.coef_):
        np.testing.assert_allclose(weight, expected, atol=5e-3 * np.abs(expected).max())
    np.testing.assert_allclose(bias, scikit_learns.intercept_, atol=1e-6)


def test_fit_head__predicts_as_scikit_learn() -> None:
    (X, y), (X_test, _) = (clouds(500, 5, 12, seed, spread=2) for seed in (1, 2))
    head = fit_head(task((X, y), kind="ridge", alpha=0.1))
    assert head.config["alpha"] == 0.1
    wide = X.astype(np.float64)
    mean, deviation = wide.mean(axis=0), wide.std(axis=0)
    model = Ridge(alpha=0.1 * 500).fit((wide - mean) / deviation, np.eye(5)[y])
    np.testing.assert_allclose(head.scores(X_test), model.predict((X_test - mean) / deviation), atol=1e-4)


def test_fit_head__chooses_alpha_on_validation() -> None:
    train, (X, y) = (clouds(count, 4, 60, seed, spread=4) for count, seed in ((100, 1), (1000, 2)))
    config = fit_head(task(train, (X, y), kind="ridge")).config
    reached = {}
    for alpha in ALPHA_GRID:
        head = fit_head(task(train, (X, y), kind="ridge", alpha=alpha))
        reached[alpha] = float((head.scores(X).argmax(axis=1) == y).mean())
    swept = {entry["alpha"]: entry["validation_top1"] for entry in config["sweep"]}
    assert list(swept) == list(ALPHA_GRID)
    np.testing.assert_allclose(list(swept.values()), list(reached.values()), atol=2e-3)  # ties may be broken otherwise
    best = max(swept.values())
    assert config["alpha"] == max(alpha for alpha, accuracy in swept.items() if accuracy == best)
    assert min(ALPHA_GRID) < config["alpha"] < max(ALPHA_GRID)


def test_fit_head__without_validation_takes_a_fixed_alpha() -> None:
    head = fit_head(task(clouds(100, 3, 5, seed=1), kind="ridge"))
    assert head.config == {"alpha": 1e-2, "sweep": []}
    assert head.temperature == 1


def test_fit_head__a_class_that_only_validation_has_counts_as_wrong() -> None:
    X, y = clouds(100, 3, 5, seed=2, spread=0.01)
    y = np.where(np.arange(100) < 25, 3, y)
    head = fit_head(task(clouds(210, 3, 5, seed=1, spread=0.01), (X, y), num_classes=3, kind="ridge"))
    assert {entry["validation_top1"] for entry in head.config["sweep"]} == {0.75}
    assert isinstance(head.model, Layers)
