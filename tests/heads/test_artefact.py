"""Heads as files: of every kind, without pickle, and plain words for what is wrong with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from safetensors.numpy import load

from pipeline.errors import TableError
from pipeline.heads import Head, load_head, save_head
from pipeline.heads.fit import fit_head
from pipeline.heads.kinds import HeadKind
from pipeline.heads.models import Layers
from tests.heads.clouds import clouds, task
from tests.heads.linear import linear_head
from tests.heads.tables import contract

KINDS = get_args(HeadKind)


@pytest.fixture(scope="module")
def heads() -> dict[str, Head]:
    """A head of each kind."""
    train, validation = (clouds(200, 4, 6, seed) for seed in (1, 2))
    return {
        kind: fit_head(task(train, validation, kind=kind, hidden=(8, 5), epochs=2, batch_size=64)) for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_save_head__load_head_gives_the_same_head(heads: dict[str, Head], tmp_path: Path, kind: str) -> None:
    head = replace(heads[kind], temperature=1.7, metrics={"test": {"top1": 0.5}})
    save_head(head, str(tmp_path / "head"))
    loaded = load_head(str(tmp_path / "head"))
    X, _ = clouds(100, 4, 6, seed=3)
    np.testing.assert_array_equal(loaded.probabilities(X), head.probabilities(X))
    np.testing.assert_array_equal(loaded.scores(X.astype(np.float16)), head.scores(X.astype(np.float16)))
    assert loaded.sha256 == head.sha256
    for name in ("kind", "classes", "contract", "temperature", "config", "metrics"):
        assert getattr(loaded, name) == getattr(head, name)
    assert type(loaded.model) is type(head.model)


def test_save_head__writes_safetensors_and_json(tmp_path: Path) -> None:
    save_head(linear_head(), str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.safetensors"]
    tensors = load((tmp_path / "head.safetensors").read_bytes())
    assert sorted(tensors) == ["layers.0.bias", "layers.0.weight", "mean", "scale"]
    description = json.loads((tmp_path / "head.json").read_text())
    assert (description["format_version"], description["kind"], description["classes"]) == (2, "logistic", ["a", "b"])


def test_save_head__replaces_an_older_one(heads: dict[str, Head], tmp_path: Path) -> None:
    for head in (heads["mlp"], heads["knn"]):
        save_head(head, str(tmp_path))
        assert load_head(str(tmp_path)).sha256 == head.sha256


def test_sha256__tells_apart_what_predicts_otherwise() -> None:
    head = linear_head()
    assert isinstance(head.model, Layers)
    others = [
        replace(head, temperature=2.0),
        replace(head, classes=("b", "a")),
        replace(head, model=replace(head.model, scale=np.asarray([1, 2], np.float32))),
    ]
    assert len({one.sha256 for one in (head, *others)}) == 4
    assert replace(head, config={"C": 1}, metrics={"test": {}}).sha256 == head.sha256


def test_probabilities__of_no_rows_and_of_many(heads: dict[str, Head]) -> None:
    for head in heads.values():
        assert head.probabilities(np.zeros((0, 6), np.float32)).shape == (0, 4)
        X, _ = clouds(9000, 4, 6, seed=3)  # several chunks
        probabilities = head.probabilities(X)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(probabilities[[0, 5000, 8999]], head.probabilities(X[[0, 5000, 8999]]), atol=1e-5)


def test_layers__are_linear_maps_with_leaky_rectifiers_between() -> None:
    layers = (
        (np.asarray([[1, 0], [0, 1]], np.float32), np.asarray([0, 1], np.float32)),
        (np.asarray([[1, 10]], np.float32), np.asarray([5], np.float32)),
    )
    model = Layers(np.asarray([1, 2], np.float32), np.asarray([2, 4], np.float32), layers)
    # (3 - 1) / 2 = 1; (-6 - 2) / 4 + 1 = -1, of which 0.01 is left: 1 - 0.1 + 5
    np.testing.assert_allclose(model.scores(np.asarray([[3, -6]], np.float32)), [[5.9]], rtol=1e-6)


def test_load_head__finds_mixed_files(tmp_path: Path) -> None:
    save_head(linear_head(), str(tmp_path / "a"))
    save_head(linear_head(("a", "b", "c")), str(tmp_path / "b"))
    (tmp_path / "b" / "head.safetensors").replace(tmp_path / "a" / "head.safetensors")
    with pytest.raises(TableError, match="not the file that head.json describes"):
        load_head(str(tmp_path / "a"))
    with pytest.raises(TableError, match="can't be read .*incomplete or damaged"):
        load_head(str(tmp_path / "b"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 1}, r"Expected head format 2 in .*head\.json, got 1\. Use the version .* or train again"),
        ({"format_version": 9}, "Expected head format 2 in .*, got 9"),
        ({"format_version": None}, "can't be read"),
        ({"kind": "forest"}, "kind 'forest' is not one of logistic, mlp, knn, ridge"),
        ({"kind": "knn"}, "can't be read"),
        ({"classes": None}, "can't be read"),
        ({"temperature": "warm"}, "can't be read"),
        ({"metrics": None}, "can't be read"),
        ({"contract": {}}, "feature contract"),
    ],
)
def test_load_head__says_what_is_wrong(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """None: the key is not there."""
    save_head(linear_head(), str(tmp_path))
    path = tmp_path / "head.json"
    description = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in description.items() if value is not None}))
    with pytest.raises(TableError, match=message):
        load_head(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"head"'])
def test_load_head__of_a_damaged_description(tmp_path: Path, text: str) -> None:
    save_head(linear_head(), str(tmp_path))
    (tmp_path / "head.json").write_text(text)
    with pytest.raises(TableError, match="can't be read .*incomplete or damaged"):
        load_head(str(tmp_path))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"", lambda data: data[:-1] + b"\x7f"]
)
def test_load_head__of_damaged_tensors(tmp_path: Path, damage: Any) -> None:
    save_head(linear_head(), str(tmp_path))
    path = tmp_path / "head.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TableError, match="not the file that head.json describes"):
        load_head(str(tmp_path))


def test_load_head__refuses_tensors_that_do_not_fit_its_description(tmp_path: Path) -> None:
    save_head(linear_head(), str(tmp_path))
    path = tmp_path / "head.json"
    description = json.loads(path.read_text())
    for change in ({"classes": ["a", "b", "c"]}, {"contract": contract(7).to_json()}):
        path.write_text(json.dumps({**description, **change}))
        with pytest.raises(TableError, match="incomplete or damaged"):
            load_head(str(tmp_path))


def test_load_head__names_the_folder_that_has_none(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"Expected a head at .*nowhere, but it has no head\.json"):
        load_head(str(tmp_path / "nowhere"))
