"""Images in two parts are found, exactly those, and said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.heads import TrainOptions, leaks, train
from pipeline.heads.features import MemoryFeatures
from pipeline.heads.leaks import Leaks, find_leaks
from pipeline.heads.near_duplicates import mean_of, nearest
from pipeline.heads.parts import divide
from pipeline.heads.rows import read_rows_of
from pipeline.table import open_table
from tests.heads.tables import Row, write_arrays, write_table

CPU = torch.device("cpu")
#: Memory in which features are streamed, in GiB: next to none.
STREAMED = 1e-6


def found(uri: str, memory_bytes: int = 2**30, **options: object) -> Leaks:
    asked = TrainOptions(table=uri, head="unused", **options)
    parts = divide(read_rows_of(open_table(uri)), asked)
    return find_leaks(parts, parts.all_features(memory_bytes), asked)


def rectified(count: int, dim: int, seed: int) -> NDArray[np.float32]:
    """Return features as a network's rectifier gives them, whose cosine with each other is about 0.9."""
    random = np.random.default_rng(seed)
    base = 1.5 * np.abs(np.random.default_rng(99).normal(0, 1, dim))
    return np.maximum(base + random.normal(0, 0.6, (count, dim)), 0).astype(np.float32)


@pytest.fixture(scope="module", params=["in memory", "streamed"])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Leaks:
    """Rows 0 to 59 are train, 60 to 79 validation, 80 to 109 test."""
    X = rectified(110, 320, 1)
    noise = 0.02 * np.random.default_rng(2).normal(0, 1, X.shape)
    contents, labels = [f"image {i}" for i in range(110)], [f"class {i % 2}" for i in range(110)]
    contents[81], contents[82], contents[63] = contents[7], contents[8], contents[9]
    X[81], X[82], X[63] = X[7], X[8], X[9]  # copies
    for near, of in ((90, 41), (91, 52), (70, 13), (92, 75)):  # all but copies
        X[near] = X[of] + noise[near]
    splits = ["train"] * 60 + ["validation"] * 20 + ["test"] * 30
    uri = write_arrays(tmp_path_factory.mktemp("leaks"), X, labels, splits, contents, rows_per_file=25)
    return found(uri, 2**30 if request.param == "in memory" else 1)


def test_find_leaks__finds_what_was_planted_and_nothing_else(planted: Leaks) -> None:
    between = {tuple(each["parts"]): each for each in planted.record["between"]}
    assert list(between) == [("train", "validation"), ("train", "test"), ("validation", "test")]
    pairs = {
        (parts, kind): [tuple(image["uri"] for image in example["images"]) for example in each[kind]["examples"]]
        for parts, each in between.items()
        for kind in ("exact", "near")
    }
    assert pairs[("train", "validation"), "exact"] == [("9", "63")]
    assert pairs[("train", "validation"), "near"] == [("13", "70")]
    assert pairs[("train", "test"), "exact"] == [("7", "81"), ("8", "82")]
    assert sorted(pairs[("train", "test"), "near"]) == [("41", "90"), ("52", "91")]
    assert pairs[("validation", "test"), "exact"] == []
    assert pairs[("validation", "test"), "near"] == [("75", "92")]
    counts = {key: between[key[0]][key[1]]["rows"] for key in pairs}
    assert counts == {key: len(value) for key, value in pairs.items()}
    assert all(each["near"]["rows_checked"] == each["rows"] for each in between.values())
    assert {name: np.flatnonzero(mask).tolist() for name, mask in planted.leaked.items()} == {
        "train": [],
        "validation": [3, 10],
        "test": [1, 2, 10, 11, 12],
    }


def test_find_leaks__says_it(planted: Leaks) -> None:
    near = "(cosine of centred features 0.99 or more)"
    assert planted.notes == [
        "Exact copies of images of train in validation: 1 row.",
        f"Near duplicates of images of train in validation {near}: 1 row, 1 of them with another label.",
        "Exact copies of images of train in test: 2 rows.",
        f"Near duplicates of images of train in test {near}: 2 rows, 2 of them with another label.",
        f"Near duplicates of images of validation in test {near}: 1 row, 1 of them with another label.",
    ]


def test_find_leaks__examples_tell_labels_and_cosine(planted: Leaks) -> None:
    (example,) = planted.record["between"][0]["near"]["examples"]
    assert example["images"] == [{"uri": "13", "label": "class 1"}, {"uri": "70", "label": "class 0"}]
    assert 0.99 <= example["cosine"] <= 1
    assert "examples" not in str(planted.counts)
    assert planted.counts["between"][0]["near"] == {"rows": 1, "other_label": 1, "rows_checked": 20}


def test_find_leaks__features_are_centred(tmp_path: Path) -> None:
    """Any two of these have a cosine above 0.85; a mean of train taken off, none is like another."""
    X = rectified(60, 320, 3)
    units = X / np.linalg.norm(X, axis=1, keepdims=True)
    assert (units @ units.T).min() > 0.85
    uri = write_arrays(tmp_path, X, ["a", "b"] * 30, ["train"] * 40 + ["test"] * 20)
    leaks = found(uri, near_duplicate_cosine=0.7)
    assert [each["near"]["rows"] for each in leaks.record["between"]] == [0, 0, 0]


def test_find_leaks__one_turns_the_search_for_near_duplicates_off(tmp_path: Path) -> None:
    uri = write_table(tmp_path, overlapping())
    leaks = found(uri, near_duplicate_cosine=1)
    assert leaks.record["near_duplicate_cosine"] is None
    assert [each["near"]["rows_checked"] for each in leaks.record["between"]] == [0, 0, 0]
    assert leaks.notes == [
        "Exact copies of images of train in test: 2 rows, 1 of them with another label.",
        "Images of train with different labels: 1 image in 2 rows.",
        "Images of test with different labels: 1 image in 2 rows.",
    ]


def test_find_leaks__looks_at_a_sample_where_pairs_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = rectified(300, 16, 4)
    X[200:] = X[:100]  # all of test
    uri = write_arrays(tmp_path, X, ["a", "b"] * 150, ["train"] * 200 + ["test"] * 100)
    monkeypatch.setattr(leaks, "_BUDGET", {"cpu": 200 * 25 * 16})
    parts = divide(read_rows_of(open_table(uri)), TrainOptions(table=uri, head="unused"))
    train_rows = int(parts.masks["train"].sum())
    first = found(uri)
    checked = {tuple(each["parts"]): each["near"]["rows_checked"] for each in first.record["between"]}
    share = 200 * 25 / (train_rows * (300 - train_rows))
    assert checked["train", "test"] == int(share * 100)
    assert (
        f"Near duplicates of images of train were looked for in {checked['train', 'test']} of 100 rows of test, chosen "
        "at random: there are too many pairs to compare all."
    ) in first.notes
    assert found(uri, seed=0).record == first.record
    assert found(uri, seed=5).leaked["test"].tolist() != first.leaked["test"].tolist()


def overlapping() -> list[Row]:
    """Row 0's image is in test twice, once with another label; row 2's is in train with two labels."""
    return [
        ("1", "a", "train", [1.0, 0.0]),
        ("2", "b", "train", [0.0, 1.0]),
        ("3", "a", "train", [2.0, 1.0]),
        ("3", "b", "train", [2.0, 1.0]),
        *[(f"more {i}", "ab"[i % 2], "train", [float(i), 3.0 * i]) for i in range(20)],
        ("1", "a", "test", [1.0, 0.0]),
        ("1", "b", "test", [1.0, 0.0]),
        ("9", "b", "test", [5.0, -9.0]),
        ("8", "a", "validation", [-4.0, -9.0]),
    ]


def test_find_leaks__of_several_copies_the_first_is_named(tmp_path: Path) -> None:
    """And those of another label don't hide the one of the same."""
    rows: list[Row] = [
        *[("same", label, "train", [1.0, 0.0]) for label in "bab"],
        ("other", "a", "train", [0.0, 1.0]),
        ("more", "a", "validation", [-1.0, 1.0]),
        ("same", "a", "test", [1.0, 0.0]),
    ]
    exact = found(write_table(tmp_path, rows), near_duplicate_cosine=1).record["between"][1]["exact"]
    assert exact == {
        "rows": 1,
        "other_label": 0,
        "examples": [{"images": [{"uri": "0", "label": "b"}, {"uri": "5", "label": "a"}]}],
    }


def test_find_leaks__tells_labels_that_contradict_each_other(tmp_path: Path) -> None:
    twins: list[Row] = 2 * [("twin", "a", "train", [8.0, 8.0])]  # which agree
    leaks = found(write_table(tmp_path, [*overlapping(), *twins]), near_duplicate_cosine=1)
    assert leaks.record["label_conflicts"] == [
        {
            "part": part,
            "images": 1,
            "rows": 2,
            "examples": [{"images": [{"uri": one, "label": "a"}, {"uri": other, "label": "b"}]}],
        }
        for part, one, other in (("train", "2", "3"), ("test", "24", "25"))
    ]


def test_train__strict_splits_refuses_before_anything_is_written(tmp_path: Path) -> None:
    uri, head = write_table(tmp_path / "table", overlapping()), tmp_path / "head"
    asked = {"table": uri, "head": str(head), "kind": "ridge", "near_duplicate_cosine": 1}
    with pytest.raises(ConfigError) as caught:
        train(TrainOptions(**asked, strict_splits=True))
    assert str(caught.value) == (
        f"Expected no image of {uri} in two parts (--strict-splits). Exact copies of images of train in test: 2 rows, "
        "1 of them with another label. For example 0 and 24. Leave them out of one part and embed again, raise "
        "--near-duplicate-cosine (1: exact copies alone), or train without --strict-splits."
    )
    assert not head.exists()
    record = train(TrainOptions(**asked))
    assert record["notes"] == record["config"]["notes"]
    assert "Exact copies of images of train in test: 2 rows, 1 of them with another label." in record["notes"]
    without = record["leaks"]["without_leaked"]["test"]
    assert without["num_rows"] == 1
    assert without["top1"] in (0.0, 1.0)
    assert record["config"]["leaks"]["without_leaked"] == record["leaks"]["without_leaked"]


def test_train__strict_splits_passes_a_table_without_leaks(tmp_path: Path) -> None:
    X = rectified(90, 64, 6)
    uri = write_arrays(tmp_path / "table", X, ["a", "b"] * 45, ["train"] * 60 + ["test"] * 30)
    record = train(TrainOptions(table=uri, head=str(tmp_path / "head"), kind="ridge", strict_splits=True))
    assert record["notes"] == []
    assert record["leaks"]["without_leaked"] == {}


@pytest.mark.parametrize("dim", [5, 256, 700])
def test_nearest__is_what_all_pairs_compared_one_by_one_give(dim: int) -> None:
    random = np.random.default_rng(dim)
    bank, rows = rectified(500, dim, 7), rectified(300, dim, 8)
    for place in range(300):  # a third at all distances, a third about the first threshold, a third unlike any
        distance = (random.uniform(0, 0.3), random.uniform(0.2, 0.3))[place % 3] if place % 3 < 2 else None
        if distance is not None:
            rows[place] = bank[place] + distance * random.normal(0, 1, dim)
    mean = mean_of(MemoryFeatures(bank, np.zeros(500, np.int64)))
    np.testing.assert_allclose(mean, bank.mean(axis=0), rtol=1e-5)
    units = [(X - mean) / np.linalg.norm(X - mean, axis=1, keepdims=True) for X in (bank, rows)]
    cosines = units[1] @ units[0].T
    best = cosines.max(axis=1)
    for threshold in (0.9, 0.97, 0.99):
        if (abs(best - threshold) < 1e-6).any():
            continue
        features = [MemoryFeatures(X, np.zeros(len(X), np.int64)) for X in (bank, rows)]
        result = nearest(*features, mean, threshold, CPU)
        np.testing.assert_array_equal(result.place >= 0, best >= threshold)
        there = result.place >= 0
        assert there.any()
        if dim > 5:
            np.testing.assert_array_equal(result.place[there], cosines.argmax(axis=1)[there])
        np.testing.assert_allclose(result.cosine[there], best[there], atol=1e-2 if dim == 5 else 1e-5)


def test_nearest__rows_that_are_the_mean_are_like_nothing() -> None:
    bank = MemoryFeatures(np.asarray([[1, 2], [3, 4], [2, 3]], np.float32), np.zeros(3, np.int64))
    result = nearest(bank, bank.only(np.asarray([False, False, True])), mean_of(bank), 0.9, CPU)
    assert result.place.tolist() == [-1]
