"""Learning curves and repeated trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.heads import EvaluateOptions, TrainOptions, evaluate, load_head, train
from pipeline.heads.curve import SHARES
from pipeline.heads.parts import Parts, divide
from pipeline.heads.rows import TRAIN, read_rows_of
from pipeline.heads.subset import Subset
from pipeline.table import open_table
from tests.heads.clouds import clouds
from tests.heads.tables import write_arrays


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three classes of 80, 40 and 3 training rows, and 60 rows of test; no validation."""
    uri = tmp_path_factory.mktemp("curve") / "table"
    X, y = clouds(600, 3, 6, seed=1, spread=2.0)
    chosen = np.concatenate([np.flatnonzero(y == k)[:n] for k, n in enumerate((80, 40, 3))])
    test = np.concatenate([np.flatnonzero(y == k)[100:120] for k in range(3)])
    rows = np.concatenate([chosen, test])
    splits = ["train"] * len(chosen) + ["test"] * len(test)
    return write_arrays(uri, X[rows], [str(k) for k in y[rows]], splits, rows_per_file=50)


@pytest.fixture(scope="module")
def parts(table: str) -> Parts:
    return divide(read_rows_of(open_table(table)), TrainOptions(table=table, head="unused"))


def chosen(parts: Parts, seed: int, share: float) -> set[int]:
    mask = Subset(seed, share).of(parts)
    return set(np.flatnonzero(parts.masks[TRAIN])[mask].tolist())


def test_subset__takes_as_many_as_asked_for_and_nested(parts: Parts) -> None:
    sizes = np.bincount(parts.rows.label[parts.masks[TRAIN]])
    assert sizes.tolist() == [64, 32, 2]
    before: set[int] = set()
    for share in (0.01, 0.1, 0.5, 1.0):
        rows = chosen(parts, 0, share)
        assert np.bincount(parts.rows.label[sorted(rows)]).tolist() == np.ceil(share * sizes).tolist()
        assert before < rows
        before = rows
    assert before == set(np.flatnonzero(parts.masks[TRAIN]).tolist())
    assert chosen(parts, 0, 0.1) != chosen(parts, 1, 0.1)


def test_subset__goes_by_content_and_not_by_place(tmp_path: Path) -> None:
    def contents_of(order: list[int]) -> set[str]:
        contents = [f"image {i}" for i in order]
        labels = ["ab"[i % 2] for i in order]
        uri = write_arrays(tmp_path / str(order[0]), np.zeros((40, 2)), labels, None, contents)
        parts = divide(read_rows_of(open_table(uri)), TrainOptions(table=uri, head="unused", validation_fraction=0.01))
        return {contents[row] for row in chosen(parts, 3, 0.2)}

    assert contents_of(list(range(40))) == contents_of(list(range(39, -1, -1)))


def test_train__learning_curve(table: str, tmp_path: Path) -> None:
    record = train(TrainOptions(table=table, head=str(tmp_path), kind="ridge", learning_curve=True))
    curve = record["learning_curve"]
    assert curve["on"] == "test"
    assert [point["share"] for point in curve["points"]] == list(SHARES)
    assert [point["num_rows"] for point in curve["points"]] == [3, 4, 7, 12, 21, 49, 98]
    for point in curve["points"]:
        low, high = point["interval"]
        assert low <= point["top1"] <= high
    test = record["metrics"]["test"]
    assert curve["points"][-1]["top1"] == test["top1"]
    assert curve["points"][-1]["interval"] == test["intervals"]["top1"]
    assert curve["points"][0]["top1"] < curve["points"][-1]["top1"]
    assert load_head(str(tmp_path)).config["learning_curve"] == curve
    assert evaluate(EvaluateOptions(table=table, head=str(tmp_path)))["metrics"] == test


def test_train__a_point_is_what_a_table_of_those_rows_gives(table: str, parts: Parts, tmp_path: Path) -> None:
    """Also that C is chosen anew: in that table it is chosen, too."""
    options = TrainOptions(table=table, head=str(tmp_path / "head"), shots=(8,))
    point = train(options)["learning_curve"]["points"][0]
    mask = Subset(0, shots=8).of(parts)
    keep = np.zeros(len(parts.rows), bool)
    keep[np.flatnonzero(parts.masks[TRAIN])[mask]] = True
    assert (point["shots"], point["num_rows"], keep.sum()) == (8, 18, 18)
    features = parts.all_features(2**30)
    X = np.zeros((len(parts.rows), 6), np.float32)
    splits: list[str | None] = ["unused"] * len(X)
    for name, part in features.items():
        X[parts.masks[name]] = part.loaded().X if hasattr(part, "loaded") else part.X
        for row in np.flatnonzero(parts.masks[name] & (keep if name == TRAIN else True)):
            splits[row] = name
    labels = [parts.rows.names[place] for place in parts.rows.label]
    small = write_arrays(tmp_path / "table", X, labels, splits)
    record = train(TrainOptions(table=small, head=str(tmp_path / "small")))
    assert record["metrics"]["test"]["top1"] == point["top1"]
    assert record["metrics"]["test"]["intervals"]["top1"] == point["interval"]
    assert "Not used, for the splits are train, validation and test: 80 rows of unused." in record["notes"]


def test_train__shots_in_order_each_once(table: str, tmp_path: Path) -> None:
    record = train(TrainOptions(table=table, head=str(tmp_path), kind="ridge", shots=(4, 1, 100, 4)))
    points = record["learning_curve"]["points"]
    assert [(point["shots"], point["num_rows"]) for point in points] == [(1, 3), (4, 10), (100, 98)]
    assert points[-1]["top1"] == record["metrics"]["test"]["top1"]


def test_train__a_learning_curve_is_measured_on_validation_where_there_is_no_test(tmp_path: Path) -> None:
    X, y = clouds(60, 2, 4, seed=3)
    uri = write_arrays(tmp_path / "table", X, [str(k) for k in y])
    record = train(TrainOptions(table=uri, head=str(tmp_path / "head"), kind="ridge", shots=(2,)))
    assert record["learning_curve"]["on"] == "validation"
    one_each = write_arrays(tmp_path / "few", X[:2], ["a", "b"])
    with pytest.raises(ConfigError, match="Expected rows of test or validation to measure a learning curve on"):
        train(TrainOptions(table=one_each, head=str(tmp_path / "none"), kind="ridge", shots=(1,)))
    assert not (tmp_path / "none").exists()


def test_train__one_kind_of_learning_curve_at_a_time() -> None:
    with pytest.raises(ConfigError, match=r"--learning-curve .* or --shots .*, got both"):
        TrainOptions(table="t", head="h", learning_curve=True, shots=(1,))


@pytest.mark.parametrize("kind", ["ridge", "mlp"])
def test_train__seeds(table: str, tmp_path: Path, kind: str) -> None:
    asked = {"table": table, "kind": kind, "epochs": 5, "hidden": (8,), "learning_rate": 0.01}
    record = train(TrainOptions(head=str(tmp_path / "all"), seed=3, seeds=3, **asked))
    alone = [train(TrainOptions(head=str(tmp_path / str(seed)), seed=seed, **asked)) for seed in (3, 4, 5)]
    seeds = record["seeds"]
    assert seeds["seeds"] == [3, 4, 5]
    assert record["head_sha256"] == alone[0]["head_sha256"]
    assert record["metrics"] == alone[0]["metrics"]
    assert "seeds" not in alone[0]
    for part, metrics in seeds["metrics"].items():
        for name, spread in metrics.items():
            values = [each["metrics"][part][name] for each in alone]
            assert spread == {
                "mean": pytest.approx(np.mean(values)),
                "std": pytest.approx(np.std(values, ddof=1)),
                "min": pytest.approx(min(values)),
                "max": pytest.approx(max(values)),
            }
    assert seeds["metrics"]["validation"]["log_loss"]["std"] > 0
    assert load_head(str(tmp_path / "all")).config["seeds"] == seeds


def test_train__says_where_seeds_change_nothing(tmp_path: Path) -> None:
    X, y = clouds(60, 2, 4, seed=3)
    splits = ["train"] * 30 + ["validation"] * 15 + ["test"] * 15
    uri = write_arrays(tmp_path / "table", X, [str(k) for k in y], splits)
    record = train(TrainOptions(table=uri, head=str(tmp_path / "head"), kind="ridge", seeds=2))
    assert (
        "Other seeds change nothing (--seeds 2): the table has splits of its own, and nothing about a ridge head is "
        "random."
    ) in record["notes"]
    assert record["seeds"]["metrics"]["test"]["top1"]["std"] == 0
