"""Logistic regression: scikit-learn's optimum, in either arithmetic, however badly conditioned the features are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from pipeline.heads import logistic
from pipeline.heads.features import MemoryFeatures
from pipeline.heads.fit import fit_head
from pipeline.heads.group import Alone
from pipeline.heads.logistic import Fit
from pipeline.heads.moments import measure
from tests.heads.clouds import CPU, clouds, measured, standardised, task
from tests.heads.groups import together

Floats = NDArray[np.float64]
ARITHMETICS = [torch.float32, torch.bfloat16]


def log_probabilities(weight: Floats, bias: Floats, Z: Floats) -> Floats:
    logits = Z @ weight.T + bias
    result: Floats = logits - logsumexp(logits, axis=1, keepdims=True)
    return result


def objective(weight: Floats, bias: Floats, Z: Floats, y: NDArray[np.int64], C: float) -> float:
    """Return the mean cross-entropy plus the penalty, as the module's docstring has them."""
    losses = -log_probabilities(weight, bias, Z)[np.arange(len(y)), y]
    return float(losses.mean() + (weight**2).sum() / (2 * C * len(y)))


def standard(X: NDArray[np.float32]) -> Floats:
    wide = X.astype(np.float64)
    deviation = wide.std(axis=0)
    result: Floats = (wide - wide.mean(axis=0)) / np.where(deviation > 1e-6 * np.abs(wide.mean(axis=0)), deviation, 1)
    return result


def of_scikit_learn(Z: Floats, y: NDArray[np.int64], C: float) -> tuple[Floats, Floats]:
    """Return the weight and bias of scikit-learn's optimum; of two classes, its one vector is the difference of two."""
    binary = y.max() == 1
    model = LogisticRegression(C=2 * C if binary else C, tol=1e-8, max_iter=20_000, solver="newton-cg").fit(Z, y)
    if binary:
        return np.vstack([-model.coef_, model.coef_]) / 2, np.concatenate([-model.intercept_, model.intercept_]) / 2
    return model.coef_, model.intercept_


def fit(
    X: NDArray[np.float32], y: NDArray[np.int64], C: float, dtype: torch.dtype = torch.float32, **more: object
) -> Fit:
    num_classes = int(y.max()) + 1
    moments = measured(X, y, num_classes)
    correlation = moments.correlation(moments.standardisation()[1])
    rows = standardised(X, y, moments, dtype)
    exact = rows if dtype == torch.float32 else standardised(X, y, moments, torch.float32)
    return logistic.fit(rows, correlation, len(y), num_classes, C, Alone(), exact=exact, **more)  # type: ignore[arg-type]


def difficult(kind: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    if kind == "wide":  # more features than rows, so that classes can be told apart without an error
        return clouds(120, 5, 300, seed=1, spread=3)
    X, y = clouds(1000, 5, 10, seed=1, spread=3)
    X = X / X.std(axis=0)
    mixed = X @ random.normal(size=(10, 40))
    if kind == "correlated":
        mixed += 1e-3 * random.normal(size=mixed.shape)
    return np.concatenate([mixed, np.full((1000, 2), 7.0)], axis=1).astype(np.float32), y  # and constants


@pytest.mark.parametrize("dtype", ARITHMETICS)
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("num_classes", [2, 7, 40])
def test_fit__is_scikit_learns_optimum(num_classes: int, C: float, dtype: torch.dtype) -> None:
    (X, y), (X_test, y_test) = (clouds(2000, num_classes, 20, seed, spread=2.5) for seed in (1, 2))
    found = fit(X, y, C, dtype)
    Z = standard(X)
    weight, bias = of_scikit_learn(Z, y, C)
    least = objective(weight, bias, Z, y, C)
    reached = objective(found.weight.astype(np.float64), found.bias.astype(np.float64), Z, y, C)
    assert least * (1 - 1e-9) <= reached <= least * (1 + 1e-5)
    assert found.loss == pytest.approx(reached, rel=1e-6)
    assert found.converged
    np.testing.assert_allclose(found.weight, weight, atol=3e-2 * np.abs(weight).max())
    centred = bias - bias.mean()  # all biases may move together
    np.testing.assert_allclose(found.bias - found.bias.mean(), centred, atol=3e-2 * max(1, np.abs(bias).max()))
    Z_test = (X_test.astype(np.float64) - X.astype(np.float64).mean(axis=0)) / X.astype(np.float64).std(axis=0)
    theirs, ours = (log_probabilities(*model, Z_test) for model in ((weight, bias), (found.weight, found.bias)))
    np.testing.assert_allclose(np.exp(ours), np.exp(theirs), atol=1e-2)
    accuracies = [(p.argmax(axis=1) == y_test).mean() for p in (theirs, ours)]
    assert abs(accuracies[0] - accuracies[1]) <= 1e-3 + 1e-9


@pytest.mark.parametrize("dtype", ARITHMETICS)
@pytest.mark.parametrize("C", [1e-2, 1e2, 1e6])
@pytest.mark.parametrize("kind", ["correlated", "dependent", "wide"])
def test_fit__of_ill_conditioned_features(kind: str, C: float, dtype: torch.dtype) -> None:
    X, y = difficult(kind)
    found = fit(X, y, C, dtype)
    Z = standard(X)
    least = objective(*of_scikit_learn(Z, y, C), Z, y, C)
    reached = objective(found.weight.astype(np.float64), found.bias.astype(np.float64), Z, y, C)
    assert least * (1 - 1e-6) <= reached <= least + 1e-4  # losses near zero: not relative
    assert found.converged
    assert found.passes < 300


def test_fit__takes_few_passes_where_features_are_correlated() -> None:
    X, y = difficult("correlated")
    Z = standard(X)
    model = LogisticRegression(C=1e4, tol=1e-6, max_iter=20_000).fit(Z, y)
    assert fit(X, y, 1e4).passes < model.n_iter_[0] / 5


@pytest.mark.parametrize("dtype", ARITHMETICS)
def test_fit__starts_from_weights_and_ends_at_the_same_optimum(dtype: torch.dtype) -> None:
    X, y = clouds(1000, 5, 10, seed=1, spread=2.5)
    cold = fit(X, y, 1.0, dtype)
    random = np.random.default_rng(0)
    far = random.normal(size=cold.weight.shape).astype(np.float32), random.normal(size=5).astype(np.float32)
    for start in (far, (cold.weight, cold.bias)):
        warm = fit(X, y, 1.0, dtype, start=start)
        assert warm.loss == pytest.approx(cold.loss, rel=1e-5)
        np.testing.assert_allclose(warm.weight, cold.weight, atol=3e-2 * np.abs(cold.weight).max())
    assert warm.iterations < cold.iterations / 2


def test_fit__tells_of_each_iteration() -> None:
    X, y = clouds(500, 5, 10, seed=1)
    Z = standard(X)
    seen: list[float] = []
    found = fit(X, y, 1.0, on_iteration=lambda weight, bias: seen.append(objective(weight, bias, Z, y, 1.0)))
    assert len(seen) == found.iterations
    assert seen[-1] == pytest.approx(found.loss, rel=1e-5)
    assert seen == sorted(seen, reverse=True)


def test_fit__shares_of_the_rows_give_the_same_optimum() -> None:
    X, y = clouds(1000, 5, 10, seed=1, spread=2.5)
    bounds = [(0, 700), (700, 1000)]

    def share(group: object) -> Fit:
        start, end = bounds[group.rank]  # type: ignore[attr-defined]
        rows = X[start:end], y[start:end]
        moments = measure(MemoryFeatures(*rows), 5, group, CPU)  # type: ignore[arg-type]
        correlation = moments.correlation(moments.standardisation()[1])
        exact = standardised(*rows, moments, torch.float32)
        return logistic.fit(exact, correlation, 1000, 5, 1.0, group, exact=exact)  # type: ignore[arg-type]

    alone = fit(X, y, 1.0)
    one, other = together(2, share)
    np.testing.assert_array_equal(one.weight, other.weight)
    assert one.loss == pytest.approx(alone.loss, rel=1e-6)
    np.testing.assert_allclose(one.weight, alone.weight, atol=3e-2 * np.abs(alone.weight).max())


@pytest.mark.parametrize("times", [1, 8])
def test_fit_head__of_features_that_are_on_in_few_rows(times: int) -> None:
    """So few that the rows that the coordinates come from have none of them."""
    (X, y), random = clouds(5000 * times, 5, 16, seed=1, spread=3), np.random.default_rng(0)
    X /= X.std(axis=0)
    rare = (random.random((len(X), 6)) < 4e-4 / times) * random.uniform(1, 3, (len(X), 6))
    X = np.concatenate([X, rare], axis=1).astype(np.float32)
    head = fit_head(task((X, y), C=1.0))
    least = objective(*of_scikit_learn(standard(X), y, 1.0), standard(X), y, 1.0)
    assert least * (1 - 1e-6) <= head.config["loss"] <= least * (1 + 2e-5)
    assert head.config["passes"] < 100


def test_fit_head__chooses_C_on_validation() -> None:
    """With few rows and many features the best C is neither the smallest nor the largest; ties go to the smaller."""
    train, validation = (clouds(count, 4, 40, seed, spread=4) for count, seed in ((160, 1), (400, 2)))
    head = fit_head(task(train, validation))
    sweep = {entry["C"]: entry["validation_top1"] for entry in head.config["sweep"]}
    best = max(sweep.values())
    assert head.config["C"] == min(C for C, reached in sweep.items() if reached == best)
    assert sum(reached == best for reached in sweep.values()) < len(sweep)
    assert min(sweep) < head.config["C"] < max(sweep)
    # The search goes down to eight values a decade around the best.
    logs = np.log10(sorted(sweep))
    place = int(np.argmin(np.abs(logs - np.log10(head.config["C"]))))
    np.testing.assert_allclose(np.diff(logs[place - 1 : place + 2]), 0.125, atol=1e-6)
    # What was scored in the sweep is what a fit at that C scores.
    for C, reached in sweep.items():
        alone = fit_head(task(train, validation, C=C))
        found = (alone.scores(validation[0]).argmax(axis=1) == validation[1]).mean()
        assert abs(found - reached) <= 0.02
    assert (head.scores(validation[0]).argmax(axis=1) == validation[1]).mean() == pytest.approx(best, abs=0.01)


def test_fit_head__of_equal_accuracies_the_smallest_C_is_taken() -> None:
    """Points that are far apart: every C is as good as the next."""
    train, validation = (clouds(210, 3, 5, seed, spread=0.01) for seed in (1, 2))
    head = fit_head(task(train, validation))
    assert {entry["validation_top1"] for entry in head.config["sweep"]} == {1.0}
    assert head.config["C"] == pytest.approx(1e-6)


def test_fit_head__without_validation_C_is_1() -> None:
    head = fit_head(task(clouds(200, 3, 5, seed=1)))
    assert head.config["C"] == 1
    assert head.config["sweep"] == []
    assert head.temperature == 1


def test_fit_head__takes_the_C_that_is_asked_for() -> None:
    train, validation = (clouds(200, 3, 5, seed) for seed in (1, 2))
    head = fit_head(task(train, validation, C=0.5))
    assert head.config["C"] == 0.5
    assert head.config["loss"] == pytest.approx(fit(*train, 0.5).loss, rel=1e-5)


def test_fit_head__a_class_that_only_validation_has_counts_as_wrong() -> None:
    train = clouds(210, 3, 5, seed=1, spread=0.01)
    X, y = clouds(100, 3, 5, seed=2, spread=0.01)
    y = np.where(np.arange(100) < 25, 3, y)
    head = fit_head(task(train, (X, y), num_classes=3))
    assert {entry["validation_top1"] for entry in head.config["sweep"]} == {0.75}


def test_fit_head__starts_from_another_head_on_other_scales_and_classes() -> None:
    """The older head knows the classes 2, 0 and 9, from points on other scales; here there are 0 to 3."""
    X, y = clouds(1000, 4, 10, seed=1, spread=2.5)
    cold_task = task((X, y), C=1.0)
    cold = fit_head(cold_task)
    old = (y == 0) | (y == 2)
    older = task((X[old], np.where(y[old] == 2, 0, 1)), num_classes=3, C=1.0)
    older_head = fit_head(type(older)(older.options, older.contract, ("2", "0", "9"), older.train, older.validation))
    warm_task = task((X, y), C=1.0)
    for start in (older_head, cold):
        warm = fit_head(
            type(warm_task)(
                warm_task.options,
                warm_task.contract,
                warm_task.classes,
                warm_task.train,
                warm_task.validation,
                start=start,
            )
        )
        assert warm.config["loss"] == pytest.approx(cold.config["loss"], rel=1e-5)
        np.testing.assert_allclose(warm.probabilities(X), cold.probabilities(X), atol=1e-2)
    assert warm.config["iterations"] < cold.config["iterations"] / 2
