"""The feature contract: what it compares, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.contract import FeatureContract, require_same_features
from pipeline.errors import ContractMismatch, TableError

CONTRACT = FeatureContract("pixels", "ab" * 32, {"name": "p", "size": 8}, 4, "random:3")


def test_digest__ignores_where_the_weights_came_from() -> None:
    assert replace(CONTRACT, weights="/some/file.pt").digest == CONTRACT.digest


@pytest.mark.parametrize(
    "change", [{"backbone": "x"}, {"weights_sha256": "cd"}, {"preprocessing": {"name": "q"}}, {"embedding_dim": 5}]
)
def test_require_same_features__refuses_each_difference(change: dict[str, object]) -> None:
    other = replace(CONTRACT, **change)  # type: ignore[arg-type]
    assert other.digest != CONTRACT.digest
    with pytest.raises(ContractMismatch, match=rf"differ in: {next(iter(change))}.*Use another"):
        require_same_features(CONTRACT, other, "Table x", "Use another one.")


def test_describe__names_random_weights() -> None:
    assert "RANDOM, seed 3" in CONTRACT.describe()
    assert "RANDOM" not in replace(CONTRACT, weights="auto").describe()


def test_from_json__round_trips_and_finds_edits() -> None:
    value = CONTRACT.to_json()
    assert FeatureContract.from_json(value, "x") == CONTRACT
    with pytest.raises(TableError, match="edited or damaged"):
        FeatureContract.from_json({**value, "embedding_dim": 8}, "x")
    with pytest.raises(TableError, match="another version"):
        FeatureContract.from_json({**value, "new_field": 8}, "x")
