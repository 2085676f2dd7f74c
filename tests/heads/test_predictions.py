"""Rows of predictions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.heads import PREDICTION_SCHEMA, classify
from tests.heads.linear import linear_head


def rows(X: np.ndarray) -> pa.Table:
    count, dim = X.shape
    values = pa.float16() if X.dtype == np.float16 else pa.float32()
    return pa.table(
        {
            "uri": [f"u{i}" for i in range(count)],
            "sha256": [f"s{i}" for i in range(count)],
            "label": pa.array(["g"] * count, pa.string()),
            "split": pa.array([None] * count, pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel(), values), dim),
        }
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_classify__gives_the_five_most_probable_in_order(dtype: type) -> None:
    X = np.asarray([[0, 1, 2, 3, 4, 5, 6], [6, 0, 0, 0, 0, 0, 0]], dtype)
    result = classify(rows(X), linear_head(tuple("abcdefg")))
    assert result.schema == PREDICTION_SCHEMA
    first, second = result.to_pylist()
    assert {name: first[name] for name in ("uri", "sha256", "label", "split")} == {
        "uri": "u0",
        "sha256": "s0",
        "label": "g",
        "split": None,
    }
    assert first["top5_labels"] == ["g", "f", "e", "d", "c"]
    assert first["predicted_label"] == "g"
    shares = np.exp(X[0].astype(np.float64)) / np.exp(X[0].astype(np.float64)).sum()
    np.testing.assert_allclose(first["top5_probabilities"], shares[:1:-1], rtol=1e-5)
    assert first["probability"] == first["top5_probabilities"][0]
    assert second["top5_labels"] == ["a", "b", "c", "d", "e"]  # of equal ones the earlier


def test_classify__of_few_classes_and_of_no_rows() -> None:
    (row,) = classify(rows(np.asarray([[1, 2]], np.float32)), linear_head()).to_pylist()
    assert row["top5_labels"] == ["b", "a"]
    nothing = classify(rows(np.zeros((0, 2), np.float32)), linear_head())
    assert nothing.schema == PREDICTION_SCHEMA
    assert len(nothing) == 0
