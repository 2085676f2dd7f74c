"""The MLP head: its gradient is the loss's, it learns what a linear head can't, and options do what they say."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.heads.features import MemoryFeatures
from pipeline.heads.group import Alone
from pipeline.heads.mlp import fit_mlp
from pipeline.heads.models import LEAKY_SLOPE, Layers
from pipeline.heads.moments import measure, spread
from pipeline.heads.network import Loss, Network
from pipeline.heads.options import HeadOptions
from pipeline.heads.task import FitTask
from tests.heads.rings import DIM, rings
from tests.heads.tables import contract

CPU = torch.device("cpu")


def fit(rows: MemoryFeatures, validation: MemoryFeatures, **options: Any) -> Any:
    classes = tuple(str(place) for place in range(int(rows.y.max()) + 1))
    options = {"learning_rate": 0.01, "dropout": 0.0, **options}  # as suits networks this small
    task = FitTask(HeadOptions(kind="mlp", device="cpu", **options), contract(DIM), classes, rows, validation)
    return fit_mlp(task)


def clouds(count: int, seed: int) -> MemoryFeatures:
    """Return rows of two overlapping classes in turn."""
    y = np.arange(count) % 2
    X = np.random.default_rng(seed).standard_normal((count, DIM)) + 0.3 * y[:, None]
    return MemoryFeatures(X.astype(np.float32), y)


def accuracy(head: Any, rows: MemoryFeatures) -> float:
    return float((head.scores(rows.X).argmax(axis=1) == rows.y).mean())


def in_pytorch(network: Network, widths: tuple[int, ...]) -> nn.Sequential:
    """Return PyTorch's own modules with the same weights."""
    modules: list[nn.Module] = []
    for (weight, bias), (wide, narrow) in zip(network.layers(), pairwise(widths), strict=True):
        linear = nn.Linear(wide, narrow)
        linear.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        modules += [linear, nn.LeakyReLU(LEAKY_SLOPE)]
    return nn.Sequential(*modules[:-1])


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 0.25, 3.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_differentiate__gives_pytorchs_gradient(weights: list[float] | None, smoothing: float) -> None:
    widths = (17, 40, 33, 5)  # none but the first is padded to itself
    network = Network(widths, 0.0, CPU, torch.float32)
    network.initialise(3)
    X, y = torch.randn(50, 17), torch.randint(0, 5, (50,))
    class_weights = None if weights is None else torch.tensor(weights)
    loss = Loss(class_weights, smoothing)
    total = network.differentiate(X, y, loss, loss.weight(y), torch.Generator())

    reference = in_pytorch(network, widths)
    mean = nn.functional.cross_entropy(reference(X), y, weight=class_weights, label_smoothing=smoothing)
    mean.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(total / loss.weight(y), mean.detach())
    mine = [part for pair in network.parts_of(network.gradient) for part in pair]
    for part, parameter in zip(mine, reference.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(part, parameter.grad, atol=1e-6, rtol=1e-4)


def test_padding__stays_zero_in_training() -> None:
    network = Network((6, 7, 3), 0.0, CPU, torch.float32)
    network.initialise(0)
    used = sum(part.numel() for pair in network.parts_of(network.theta) for part in pair)
    optimizer = torch.optim.AdamW([network.theta], lr=0.1)
    for seed in range(5):
        X = torch.randn(9, 6, generator=torch.Generator().manual_seed(seed))
        network.differentiate(X, torch.arange(9) % 3, Loss(), torch.tensor(9.0), torch.Generator())
        optimizer.step()
        network.refresh()
    kept = network.theta.clone()
    for pair in network.parts_of(kept):
        for part in pair:
            part.zero_()
    assert used == 6 * 7 + 7 + 7 * 3 + 3
    assert len(kept) > used
    assert not kept.any()


def test_dropout__keeps_the_mean_and_the_gradient_of_what_is_kept() -> None:
    network = Network((4, 4096, 2), 0.25, CPU, torch.float32)
    network.initialise(0)
    X, y = torch.randn(64, 4), torch.arange(64) % 2
    random = torch.Generator().manual_seed(5)
    network.differentiate(X, y, Loss(), torch.tensor(64.0), random)
    by_hand = network.gradient.clone()

    drawn = torch.empty(64 * 4096 // 8, dtype=torch.int64)
    drawn.random_(-(2**63), None, generator=torch.Generator().manual_seed(5))
    keep = (drawn.view(torch.uint8).view(64, 4096) >= 64) / 0.75
    assert float((keep > 0).float().mean()) == pytest.approx(0.75, abs=0.005)
    first, rectifier, second = in_pytorch(network, (4, 4096, 2))
    hidden = rectifier(first(X))
    loss = nn.functional.cross_entropy(second(hidden * keep), y)
    loss.backward()  # type: ignore[no-untyped-call]
    (weight, bias), _ = network.parts_of(by_hand)
    torch.testing.assert_close(weight, first.weight.grad, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(bias, first.bias.grad, atol=1e-6, rtol=1e-3)
    hidden = hidden.detach()
    assert float((hidden * keep).mean() / hidden.mean()) == pytest.approx(1, abs=0.02)
    # Nothing is dropped where rows are scored.
    torch.testing.assert_close(network.logits(X), second(hidden))


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_fit__learns_rings_that_no_plane_divides(optimizer: str) -> None:
    rows, validation = rings(1500, 0), rings(600, 1)
    head = fit(rows, validation, hidden=(64, 32), optimizer=optimizer, epochs=20)
    assert accuracy(head, validation) > 0.95
    assert head.config["history"][0]["loss"] > head.config["history"][-1]["loss"]


def test_fit__is_the_same_at_a_seed_and_another_at_another() -> None:
    rows, validation = rings(300, 0), rings(100, 1)
    options: dict[str, Any] = {"hidden": (16,), "epochs": 3, "dropout": 0.3}
    first, again = (fit(rows, validation, **options, seed=1) for _ in range(2))
    assert first.sha256 == again.sha256
    assert first.config == again.config
    assert fit(rows, validation, **options, seed=2).sha256 != first.sha256


def test_fit__keeps_the_best_epoch_and_stops_when_patience_ends() -> None:
    rows, validation = rings(200, 0), rings(100, 1)
    noise = MemoryFeatures(validation.X, np.random.default_rng(0).permutation(validation.y))
    head = fit(rows, noise, hidden=(16,), epochs=50, patience=3)
    history = head.config["history"]
    scores = [(entry["validation_top1"], -entry["validation_loss"]) for entry in history]
    assert head.config["best_epoch"] == scores.index(max(scores)) + 1
    assert len(history) == min(50, head.config["best_epoch"] + 3)
    assert accuracy(head, noise) == pytest.approx(max(scores)[0], abs=0.02)  # which was scored in the fast arithmetic


def test_fit__runs_all_epochs_without_validation_rows() -> None:
    rows = rings(200, 0)
    none = MemoryFeatures(rows.X[:0], rows.y[:0])
    head = fit(rows, none, hidden=(16,), epochs=4, patience=1)
    assert head.config["best_epoch"] == len(head.config["history"]) == 4


def test_fit__a_class_that_only_validation_has_counts_as_wrong() -> None:
    rows, validation = rings(300, 0), rings(100, 1)
    other = MemoryFeatures(validation.X, np.where(np.arange(100) < 50, 3, validation.y))
    head = fit(rows, other, hidden=(64,), epochs=10)
    best = head.config["history"][head.config["best_epoch"] - 1]
    assert best["validation_top1"] <= 0.5
    assert np.isfinite(best["validation_loss"])


def test_class_weights__balanced_finds_more_of_a_rare_class() -> None:
    rows, validation = clouds(2000, 0), clouds(1000, 1)
    rows = rows.only((rows.y == 0) | (np.random.default_rng(0).random(len(rows.y)) < 0.05))
    found = {}
    for weights in ("none", "balanced"):
        head = fit(rows, validation.only(validation.y == 5), hidden=(16,), epochs=8, class_weights=weights)
        found[weights] = float((head.scores(validation.X).argmax(1) == 1)[validation.y == 1].mean())
    assert found["balanced"] > found["none"] + 0.2


def test_label_smoothing__makes_scores_less_sure() -> None:
    rows, validation = rings(1000, 0), rings(300, 1)

    def confidence(smoothing: float) -> float:
        head = fit(rows, validation, hidden=(32,), epochs=15, label_smoothing=smoothing)
        return float(head.probabilities(validation.X).max(axis=1).mean())

    assert confidence(0.3) < confidence(0.0) - 0.05


def test_weight_decay__makes_weights_smaller() -> None:
    rows, validation = rings(500, 0), rings(100, 1)

    def size(decay: float) -> float:
        head = fit(rows, validation, hidden=(32,), epochs=10, patience=10, weight_decay=decay)
        assert isinstance(head.model, Layers)
        return float(sum(np.square(weight).sum() for weight, _ in head.model.layers))

    assert size(10.0) < 0.8 * size(0.0)


@pytest.mark.parametrize(
    ("num_rows", "batch_size"), [(100, 32), (3000, 64), (10_000, 256), (41_322, 1024), (10**6, 1024)]
)
def test_batch_size__grows_with_the_rows(num_rows: int, batch_size: int) -> None:
    from pipeline.heads.mlp import _batch_size

    assert _batch_size(num_rows) == batch_size


def test_spread__is_what_the_covariance_gives() -> None:
    random = np.random.default_rng(0)
    X: NDArray[np.float32] = (random.normal(3, 2, (500, 6)) * [1, 10, 0.1, 1, 1, 1]).astype(np.float32)
    X[:, 4] = 7.1  # constant
    X[:, 5] += 1000
    rows = MemoryFeatures(X, np.arange(500) % 3)
    mean, scale = measure(rows, 4, Alone(), CPU).standardisation()
    found = spread(rows, 4, Alone(), CPU)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(found.scale, scale, rtol=1e-4)
    np.testing.assert_allclose(found.scale[[0, 1, 2, 3, 5]], X.std(axis=0)[[0, 1, 2, 3, 5]], rtol=1e-4)
    assert found.scale[4] == 1
    assert found.class_counts.tolist() == [167, 167, 166, 0]
    assert found.num_rows == 500
