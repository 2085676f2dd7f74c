"""The feature contract: what it compares, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.contract import FeatureContract, Quantisation, require_same_features
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


QUANTISED = replace(CONTRACT, weights="/t/network/x", quantisation=Quantisation("nncf int8", "cd", "ef", "random:3"))


def test_digest__without_quantisation_is_what_it_was_before_there_was_any() -> None:
    value = CONTRACT.to_json()
    assert value.pop("digest") == "cec6c7ee4a015d010bed8a8b30062abeea9b9fb339f7b9b76107699458f95291"
    assert sorted(value) == ["backbone", "embedding_dim", "preprocessing", "weights", "weights_sha256"]


def test_digest__of_a_quantised_network_is_another_one() -> None:
    others = [
        replace(QUANTISED, quantisation=Quantisation("other", "cd", "ef", "random:3")),
        replace(QUANTISED, quantisation=Quantisation("nncf int8", "ce", "ef", "random:3")),
        replace(QUANTISED, quantisation=Quantisation("nncf int8", "cd", "ee", "random:3")),
        CONTRACT,
    ]
    assert len({contract.digest for contract in (QUANTISED, *others)}) == 5
    moved = replace(QUANTISED, weights="/u", quantisation=Quantisation("nncf int8", "cd", "ef", "/some/file.pt"))
    assert moved.digest == QUANTISED.digest
    with pytest.raises(ContractMismatch, match="differ in: quantisation;"):
        require_same_features(CONTRACT, QUANTISED, "Table x", "Use another one.")


def test_quantised__says_so_and_of_what() -> None:
    assert "(RANDOM, seed 3) (int8, calibration cd" in QUANTISED.describe()
    assert QUANTISED.random_weights
    assert QUANTISED.before_quantisation() == replace(CONTRACT, weights_sha256="ef")
    assert CONTRACT.before_quantisation() is CONTRACT
    assert FeatureContract.from_json(QUANTISED.to_json(), "x") == QUANTISED
