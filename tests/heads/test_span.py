"""Few rows of many features: the same heads, whether fitted in the rows' span or in all coordinates."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

from pipeline.heads import fit_head
from pipeline.heads.models import Layers
from pipeline.heads.span import span_of
from tests.heads.clouds import clouds, task


def few(kind: str, **options: object) -> object:
    (X, y), (X_validation, y_validation) = (clouds(count, 4, 60, seed, spread=4) for seed, count in ((1, 25), (2, 40)))
    return task((X, y), (X_validation, y_validation), kind=kind, **options)


def test_span__coordinates_lose_nothing() -> None:
    of = few("ridge")
    span = span_of(of)  # type: ignore[arg-type]
    assert span is not None
    mean, scale = of.moments.standardisation()  # type: ignore[attr-defined]
    Z = (of.train.X - mean) / scale  # type: ignore[attr-defined]
    assert len(span.basis) == 24  # 25 rows less their mean
    np.testing.assert_allclose(span.basis @ span.basis.T, np.eye(24), atol=1e-9)
    np.testing.assert_allclose(span.coordinates(Z) @ span.basis, Z, atol=1e-4)
    np.testing.assert_allclose(np.diag(span.coordinates(Z).T @ span.coordinates(Z)), span.squares, rtol=1e-4)


@pytest.mark.parametrize(("kind", "options"), [("ridge", {"alpha": 0.1}), ("logistic", {"C": 0.5})])
def test_fit_head__in_the_span_is_the_same_head(kind: str, options: dict[str, float]) -> None:
    heads = [fit_head(few(kind, **options))]  # type: ignore[arg-type]
    with patch("pipeline.heads.span._SHARE", 0.0):
        heads.append(fit_head(few(kind, **options)))  # type: ignore[arg-type]
    weights = []
    for head in heads:
        assert isinstance(head.model, Layers)
        weights.append(head.model.layers[0])
    scale = np.abs(weights[1][0]).max()
    np.testing.assert_allclose(weights[0][0], weights[1][0], atol=5e-3 * scale)
    np.testing.assert_allclose(weights[0][1], weights[1][1], atol=5e-3)


def test_span__none_where_rows_are_many() -> None:
    assert span_of(task(clouds(80, 4, 60, 1), clouds(10, 4, 60, 2), kind="ridge")) is None
