"""Predictions: the five most probable classes, and what is called unknown."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.contract import FeatureContract
from pipeline.errors import ConfigError
from pipeline.heads import Head, Predictor, classify
from pipeline.heads.models import Layers
from pipeline.heads.predictions import TOP_K
from pipeline.table.schema import PREDICTION_SCHEMA

CONTRACT = FeatureContract("pixels", "00", {"name": "p"}, 3, "none")


def head_of(num_classes: int, seed: int = 0) -> Head:
    random = np.random.default_rng(seed)
    weight, bias = random.normal(size=(num_classes, 3)), random.normal(size=num_classes)
    layers = ((weight.astype(np.float32), bias.astype(np.float32)),)
    model = Layers(np.zeros(3, np.float32), np.ones(3, np.float32), layers)
    return Head("logistic", tuple(f"class {i}" for i in range(num_classes)), CONTRACT, model, 1.5)


def features(count: int) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(count, 3)).astype(np.float32)


@pytest.mark.parametrize("num_classes", [2, 5, 9])
@pytest.mark.parametrize("count", [1, 1024, 2500])
def test_predictor__names_the_most_probable_classes(num_classes: int, count: int) -> None:
    head, X = head_of(num_classes), features(count)
    probabilities = head.probabilities(X)
    rows = Predictor(head)(X).to_pylist()
    assert len(rows) == count
    for row, expected in zip(rows, probabilities, strict=True):
        best = sorted(range(num_classes), key=lambda place: -expected[place])[:TOP_K]
        assert row["top5_labels"] == [head.classes[place] for place in best]
        np.testing.assert_allclose(row["top5_probabilities"], expected[best], rtol=1e-5)
        assert (row["predicted_label"], row["probability"]) == (row["top5_labels"][0], row["top5_probabilities"][0])


def test_predictor__below_the_threshold_the_label_is_unknown_and_nothing_else_changes() -> None:
    head, X = head_of(4), features(200)
    plain = pa.table(Predictor(head)(X).flatten(), names=["label", "p", "names", "values"])
    threshold = float(np.sort(plain["p"].to_numpy())[80])  # exactly one row's own probability, which is not below it
    some = pa.table(Predictor(head, threshold, "?")(X).flatten(), names=["label", "p", "names", "values"])
    for row, before in zip(some.to_pylist(), plain.to_pylist(), strict=True):
        assert row["label"] == ("?" if before["p"] < threshold else before["label"])
    assert some["label"].to_pylist().count("?") == 80
    assert some.drop_columns(["label"]).equals(plain.drop_columns(["label"]))
    everything = Predictor(head, 1.0, "?")(X).field("predicted_label")
    assert set(everything.to_pylist()) == {"?"}


def test_predictor__refuses_a_class_of_the_unknowns_name() -> None:
    with pytest.raises(ConfigError, match="class named 'class 1'.*--unknown-label"):
        Predictor(head_of(3), 0.5, "class 1")
    Predictor(head_of(3), None, None)


def test_predictor__of_no_rows() -> None:
    assert len(Predictor(head_of(3))(features(0))) == 0


def test_classify__rows_of_the_format() -> None:
    X = features(3)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), 3)
    rows = pa.table({"uri": ["a", "b", "c"], "sha256": ["x", "y", "z"], "label": ["1", None, "3"]})
    rows = rows.append_column("split", pa.nulls(3, pa.string())).append_column("embedding", vectors)
    found = classify(rows, head_of(6))
    assert found.schema == PREDICTION_SCHEMA
    names = ["uri", "sha256", "label", "split"]
    assert found.select(names).to_pydict() == rows.select(names).to_pydict()
