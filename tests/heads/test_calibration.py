"""The temperature: found where scores are too sure, 1 where nothing tells it, and no prediction changes by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.heads.artefact import softmax
from pipeline.heads.calibration import temperature
from pipeline.heads.features import MemoryFeatures, StreamedFeatures
from pipeline.heads.fit import fit_head
from pipeline.heads.metrics import observe, summarise
from pipeline.heads.rows import read_rows_of
from pipeline.table import open_table
from tests.heads.clouds import clouds, task
from tests.heads.linear import linear_head
from tests.heads.tables import write_arrays

HEAD = linear_head(tuple("abcde"))


def honest(count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores of five classes, and classes that are drawn with the probabilities that the scores say."""
    random = np.random.default_rng(seed)
    scores = random.normal(0, 1.5, (count, 5)).astype(np.float32)
    shares = softmax(scores).cumsum(axis=1)
    return scores, np.minimum((random.random((count, 1)) > shares).sum(axis=1), 4)


@pytest.mark.parametrize("made_by", [1e-5, 0.02, 0.2, 1.0, 5.0, 50.0, 1e4])
def test_temperature__finds_the_one_that_the_scores_were_made_by(made_by: float) -> None:
    scores, y = honest(20_000)
    assert temperature(HEAD, MemoryFeatures(scores * np.float32(made_by), y)) == pytest.approx(made_by, rel=0.05)


@pytest.mark.parametrize("margin", [0.01, 1.0, 1000.0])
def test_temperature__of_rows_that_are_all_right_is_as_sure_as_so_many_can_be(margin: float) -> None:
    """One of n + 2 is taken to be wrong, whatever the scale of the scores."""
    y = np.arange(200) % 5
    scores = (np.eye(5)[y] * margin).astype(np.float32)
    scaled = scores / temperature(HEAD, MemoryFeatures(scores, y))
    confidence = np.exp(scaled).max(axis=1) / np.exp(scaled).sum(axis=1)
    assert confidence == pytest.approx(1 - 1 / 202, abs=1e-4)


def test_temperature__is_1_for_want_of_rows() -> None:
    scores, y = honest(19)
    assert temperature(HEAD, MemoryFeatures(3 * scores, y)) == 1
    assert temperature(HEAD, MemoryFeatures(scores[:0], y[:0])) == 1
    scores, y = honest(20)
    assert temperature(HEAD, MemoryFeatures(3 * scores, y)) != 1


def test_temperature__goes_by_the_classes_that_the_head_knows() -> None:
    scores, y = honest(2000)
    alone = temperature(HEAD, MemoryFeatures(3 * scores, y))
    strange = np.concatenate([3 * scores, 100 * scores]), np.concatenate([y, np.full(2000, 5)])
    assert temperature(HEAD, MemoryFeatures(*strange)) == pytest.approx(alone, rel=1e-3)


def test_temperature__of_streamed_rows_is_the_same(tmp_path: Path) -> None:
    scores, y = honest(500)
    files = [100, 0, 7, 393]
    uri = write_arrays(tmp_path, 3 * scores, ["abcde"[i] for i in y], rows_per_file=files)
    rows = read_rows_of(open_table(uri, {}))
    streamed = StreamedFeatures(rows, np.ones(500, bool), rows.label.astype(np.int64), 10)
    assert temperature(HEAD, streamed) == pytest.approx(temperature(HEAD, MemoryFeatures(3 * scores, y)), rel=1e-6)


@pytest.mark.parametrize("kind", ["logistic", "ridge", "knn"])
def test_fit_head__is_calibrated_and_predicts_as_before(kind: str) -> None:
    train, validation, (X, y) = (clouds(count, 4, 30, s, spread=4) for s, count in ((1, 300), (2, 3000), (3, 3000)))
    extra = {"C": 1e4} if kind == "logistic" else {}
    head = fit_head(task(train, validation, kind=kind, **extra))
    raw = replace(head, temperature=1.0)
    assert head.temperature != 1
    np.testing.assert_array_equal(head.probabilities(X).argmax(axis=1), head.scores(X).argmax(axis=1))
    after, before = (summarise(observe(one, MemoryFeatures(X, y), head.classes)) for one in (head, raw))
    assert after["top1"] == before["top1"]
    assert after["log_loss"] < before["log_loss"]
    assert after["ece"] < before["ece"] / 2
    assert after["ece"] < 0.05
