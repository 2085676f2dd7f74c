"""k-nearest neighbours, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.heads import device_neighbours
from pipeline.heads.device_neighbours import DeviceNeighbours
from pipeline.heads.fit import fit_head
from pipeline.heads.neighbours import Neighbours, normalised
from tests.heads.clouds import CPU, clouds, task


def votes(bank: np.ndarray, places: np.ndarray, x: np.ndarray, k: int, tau: float, num_classes: int) -> np.ndarray:
    """Return each class's share of the votes, as the DINO evaluation counts them."""
    similarities = [float(np.dot(row, x) / np.linalg.norm(x)) for row in bank.astype(np.float64)]
    nearest = sorted(range(len(bank)), key=lambda i: (-similarities[i], i))[:k]
    result = np.zeros(num_classes)
    for i in nearest:
        result[places[i]] += np.exp(similarities[i] / tau)
    return result / result.sum()


@pytest.mark.parametrize(("k", "tau"), [(1, 0.07), (5, 0.07), (20, 0.5), (1000, 0.07)])
def test_head__votes_as_a_plain_loop_does(k: int, tau: float) -> None:
    (X, y), (X_test, _) = (clouds(300, 4, 16, seed, spread=3) for seed in (1, 2))
    head = fit_head(task((X, y), kind="knn", k=k, tau=tau))
    assert isinstance(head.model, Neighbours)
    np.testing.assert_allclose(head.model.bank, X / np.linalg.norm(X, axis=1, keepdims=True), atol=5e-4)
    np.testing.assert_array_equal(head.model.places, y)
    expected = np.stack([votes(head.model.bank, y, x, k, tau, 4) for x in X_test.astype(np.float64)])
    np.testing.assert_allclose(head.probabilities(X_test), expected, atol=5e-5)


@given(st.data(), st.integers(1, 12), st.integers(1, 30))
def test_nearest__of_equal_similarities_the_earlier_counts(data: st.DataObject, k: int, count: int) -> None:
    """Similarities of 0 and 1 only, so most of them are equal."""
    axes = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    bank = np.eye(3, dtype=np.float16)[axes]
    model = Neighbours(bank, np.zeros(count, np.int32), k, 0.07, 1)
    similarity, places = model.nearest(np.eye(3, dtype=np.float32), k)
    for axis in range(3):
        expected = sorted(range(count), key=lambda i: (axes[i] != axis, i))[:k]
        assert places[axis].tolist() == expected
        assert similarity[axis].tolist() == [float(axes[i] == axis) for i in expected]


def test_nearest__does_not_depend_on_how_many_are_compared_at_once() -> None:
    """So many are asked that the bank is taken in three parts."""
    (X, y), (X_test, _) = (clouds(count, 4, 16, seed) for seed, count in ((1, 9000), (2, 4096)))
    model = Neighbours(normalised(X).astype(np.float16), y.astype(np.int32), 20, 0.07, 4)
    asked = normalised(X_test)
    similarity, places = model.nearest(asked, 20)
    some = [0, 1000, 4095]
    alone = model.nearest(asked[some], 20)
    np.testing.assert_array_equal(places[some], alone[1])
    np.testing.assert_allclose(similarity[some], alone[0], atol=1e-6)
    assert places.max() > 8192
    whole = asked[some] @ model.bank.astype(np.float32).T
    np.testing.assert_array_equal(places[some], np.argsort(-whole, axis=1, kind="stable")[:, :20])


def test_scores__are_finite_where_no_neighbour_is_of_a_class_or_alike() -> None:
    bank = np.asarray([[1, 0], [1, 0], [-1, 0]], np.float16)
    model = Neighbours(bank, np.asarray([0, 0, 1], np.int32), 2, 1e-3, 3)
    scores = model.scores(np.asarray([[5, 0], [-5, 0], [0, 0]], np.float32))
    assert np.isfinite(scores).all()
    assert scores.argmax(axis=1).tolist() == [0, 1, 0]
    shares = np.exp(scores)
    assert shares[0, 1:].max() < 1e-5


def test_normalised__leaves_zeros() -> None:
    rows = normalised(np.asarray([[3, 4], [0, 0]], np.float16))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("at_once", [2**28, 5000], ids=["in one part", "in parts"])
@pytest.mark.parametrize("k", [1, 20, 1000])
def test_device_neighbours__are_the_same_ones(k: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_neighbours, "_AT_ONCE", at_once)
    (X, y), (X_test, _) = (clouds(count, 4, 16, seed) for seed, count in ((1, 700), (2, 90)))
    model = Neighbours(normalised(X).astype(np.float16), y.astype(np.int32), k, 0.07, 4)
    on_device = DeviceNeighbours.of(model, CPU)
    similarity, places = on_device.nearest(normalised(X_test), k)
    expected = model.nearest(normalised(X_test), k)
    assert places.shape == (90, min(k, 700))
    np.testing.assert_allclose(similarity, expected[0], atol=1e-6)
    assert (places == expected[1]).mean() > 0.999  # a rounding may exchange two
    np.testing.assert_allclose(on_device.scores(X_test), model.scores(X_test), atol=1e-4)
    assert sorted(on_device.tensors()) == sorted(model.tensors())
