"""Checkpoints: an interrupted training ends as one that was not, and only its own checkpoint is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.heads import TrainOptions, fit_head, load_head, train
from pipeline.heads.artefact import Head
from pipeline.heads.checkpoint import FolderCheckpoint, State
from pipeline.heads.features import MemoryFeatures
from pipeline.heads.options import HeadOptions
from pipeline.heads.parts import divide
from pipeline.heads.rows import read_rows_of
from pipeline.heads.shares import training_key
from pipeline.heads.task import FitTask
from pipeline.table import open_table
from tests.heads.groups import Threads, together
from tests.heads.rings import DIM, rings
from tests.heads.tables import contract, write_arrays


class Stopped(Exception):
    """Stands for the end of the process."""


class StopsAfter(FolderCheckpoint):
    """A checkpoint whose process ends after so many of them."""

    left = 10**9

    def save(self, stage: str, state: Any) -> None:
        self._next = 0  # however long writing took
        super().save(stage, state)
        self.left -= 1
        if not self.left:
            raise Stopped


def checkpoint(folder: Path, left: int = 10**9, key: str = "key") -> StopsAfter:
    value = StopsAfter(str(folder), lambda: key, interval_s=0.0)
    value.left = left
    return value


def file_in(folder: Path) -> Path:
    return folder / "checkpoint.safetensors"


def fit(place: Any, rows: MemoryFeatures, validation: MemoryFeatures, **options: Any) -> Head:
    asked = HeadOptions(**{"device": "cpu", **options})
    return fit_head(FitTask(asked, contract(DIM), ("0", "1", "2"), rows, validation, checkpoint=place))


MLP: dict[str, Any] = {"kind": "mlp", "hidden": (16,), "epochs": 6, "patience": 6, "dropout": 0.2}


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_mlp__interrupted_after_any_epoch_ends_the_same(tmp_path: Path, optimizer: str, epochs: int) -> None:
    rows, validation = rings(300, 0), rings(90, 1)
    options = {**MLP, "optimizer": optimizer, "learning_rate": 0.01}
    whole = fit(checkpoint(tmp_path / "whole"), rows, validation, **options)
    with pytest.raises(Stopped):
        fit(checkpoint(tmp_path / "broken", left=epochs), rows, validation, **options)
    again = checkpoint(tmp_path / "broken", left=100)
    resumed = fit(again, rows, validation, **options)
    assert resumed.sha256 == whole.sha256
    assert resumed.config == whole.config
    assert 100 - again.left == 6 - epochs  # and didn't begin again


def test_logistic__goes_on_with_the_sweep_where_it_was(tmp_path: Path) -> None:
    rows, validation = rings(300, 0), rings(90, 1)
    counting = checkpoint(tmp_path / "whole")
    whole = fit(counting, rows, validation, kind="logistic")
    iterations = 10**9 - counting.left
    with pytest.raises(Stopped):
        fit(checkpoint(tmp_path / "broken", left=iterations // 2), rows, validation, kind="logistic")
    again = checkpoint(tmp_path / "broken")
    resumed = fit(again, rows, validation, kind="logistic")
    assert 10**9 - again.left < 0.75 * iterations
    assert resumed.config["C"] == whole.config["C"]
    np.testing.assert_allclose(resumed.scores(validation.X), whole.scores(validation.X), atol=2e-2)
    for entry, same in zip(resumed.config["sweep"], whole.config["sweep"], strict=True):
        assert entry["C"] == same["C"]
        assert entry["validation_top1"] == pytest.approx(same["validation_top1"], abs=2 / 90)


def test_logistic__streamed_rows_go_on_with_the_chosen_c(tmp_path: Path) -> None:
    table = write_arrays(tmp_path / "table", rings(300, 0).X, [str(y) for y in rings(300, 0).y], rows_per_file=64)
    options = TrainOptions(table=table, head=str(tmp_path / "head"), memory_gb=1e-6)
    parts = divide(read_rows_of(open_table(table)), options)

    def run(place: FolderCheckpoint) -> Head:
        features = [parts.features(name, 1000) for name in ("train", "validation")]
        return fit_head(FitTask(options, contract(DIM), parts.classes, *features, checkpoint=place))  # type: ignore[arg-type]

    whole = run(checkpoint(tmp_path / "whole"))
    broken = checkpoint(tmp_path / "broken")
    reached: list[str] = []

    class StopsOnAllRows(StopsAfter):
        def save(self, stage: str, state: Any) -> None:
            reached.append(stage)
            super().save(stage, state)
            if reached.count("logistic on all rows") == 2:
                raise Stopped

    with pytest.raises(Stopped):
        run(StopsOnAllRows(str(tmp_path / "broken"), lambda: "key", interval_s=0.0))
    seen = len(reached)
    again = run(StopsOnAllRows(str(tmp_path / "broken"), lambda: "key", interval_s=0.0))
    assert set(reached[seen:]) <= {"logistic on all rows"}
    assert again.config["sweep"] == whole.config["sweep"]
    assert again.config["C"] == whole.config["C"]
    assert broken.load("logistic sweep") is None


def test_logistic__a_sweep_in_the_span_of_few_rows_is_begun_again_where_there_is_no_span(tmp_path: Path) -> None:
    """As where a training was interrupted that had all rows, and goes on in workers, which have shares."""
    random = np.random.default_rng(0)
    rows = MemoryFeatures(random.standard_normal((40, 60), np.float32), np.arange(40) % 3)
    asked = HeadOptions(device="cpu", C=1.0)
    task = FitTask(asked, contract(60), ("0", "1", "2"), rows, rows, checkpoint=checkpoint(tmp_path, left=2))
    with pytest.raises(Stopped):
        fit_head(task)

    def share(group: Threads) -> Head:
        half = MemoryFeatures(rows.X[group.rank :: 2], rows.y[group.rank :: 2])
        place = FolderCheckpoint(str(tmp_path), lambda: "key", group=group)
        return fit_head(FitTask(asked, contract(60), ("0", "1", "2"), half, rows, group, checkpoint=place))

    one, other = together(2, share)
    assert one.sha256 == other.sha256
    expected = fit_head(FitTask(asked, contract(60), ("0", "1", "2"), rows, rows))
    np.testing.assert_allclose(one.scores(rows.X), expected.scores(rows.X), atol=0.05)


def test_load__another_key_is_ignored_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = State({"x": np.arange(3.0)}, {"epoch": 2, "loss": [0.1]})
    checkpoint(tmp_path).save("mlp", lambda: state)
    found = checkpoint(tmp_path).load("mlp")
    assert found is not None
    assert found.notes == state.notes
    np.testing.assert_array_equal(found.tensors["x"], state.tensors["x"])
    assert checkpoint(tmp_path).load("another stage") is None
    caplog.clear()
    assert checkpoint(tmp_path, key="other").load("mlp") is None
    assert "of another training" in caplog.text


@pytest.mark.parametrize("content", [b"", b"x" * 100, None])
def test_load__a_damaged_file_is_ignored_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    checkpoint(tmp_path).save("mlp", lambda: State({"x": np.arange(100.0)}, {}))
    whole = file_in(tmp_path).read_bytes()
    file_in(tmp_path).write_bytes(whole[:-8] if content is None else content)
    assert checkpoint(tmp_path).load("mlp") is None
    assert "can't be read" in caplog.text


def test_save__not_before_its_time(tmp_path: Path) -> None:
    asked: list[int] = []

    def state() -> State:
        asked.append(1)
        return State({}, {})

    slow = FolderCheckpoint(str(tmp_path), lambda: "key", interval_s=60.0)
    slow.save("mlp", state)
    assert not asked
    assert not file_in(tmp_path).exists()


def test_train__leaves_no_checkpoint_and_no_other_file(tmp_path: Path) -> None:
    rows = rings(200, 0)
    table = write_arrays(tmp_path / "table", rows.X, [str(y) for y in rows.y])
    head = tmp_path / "head"
    checkpoint(head, key="of an older training").save("mlp", lambda: State({}, {}))
    train(TrainOptions(table=table, head=str(head), **MLP))
    assert sorted(path.name for path in head.iterdir()) == ["head.json", "head.safetensors"]
    assert load_head(str(head)).kind == "mlp"


def test_training_key__changes_with_all_that_matters(tmp_path: Path) -> None:
    rows = rings(60, 0)
    labels = [str(y) for y in rows.y]

    def key(name: str, labels: list[str], split: str | None, contents: list[str] | None, **options: Any) -> str:
        table = write_arrays(tmp_path / name, rows.X, labels, [split] * 30 + [None] * 30, contents)
        asked = TrainOptions(table=table, head="head", **{"kind": "mlp", **options})
        return training_key(asked, divide(read_rows_of(open_table(table)), asked))

    first = key("1", labels, None, None)
    assert key("2", labels, None, None) == first  # wherever the table is
    assert key("3", labels, None, None, device="cpu") == first
    others = [
        key("4", ["1", *labels[1:]], None, None),
        key("5", labels, "test", None),
        key("6", labels, None, [f"other {i}" for i in range(60)]),
        key("7", labels, None, None, epochs=7),
        key("8", labels, None, None, seed=1),
        key("9", labels, None, None, validation_fraction=0.4),
    ]
    assert len({first, *others}) == 7


def test_group__all_go_on_from_what_the_first_has_read(tmp_path: Path) -> None:
    checkpoint(tmp_path).save("mlp", lambda: State({"x": np.arange(3.0)}, {"epoch": 2}))

    def load(group: Threads) -> State | None:
        folder = tmp_path if group.rank == 0 else tmp_path / "elsewhere"
        return FolderCheckpoint(str(folder), lambda: "key", group=group).load("mlp")

    states = together(3, load)
    assert [state.notes for state in states if state] == 3 * [{"epoch": 2}]


def test_group__only_the_first_writes_and_removes(tmp_path: Path) -> None:
    class Second(Threads):
        def __init__(self) -> None:
            self.rank, self.size = 1, 2

    second = FolderCheckpoint(str(tmp_path), lambda: "key", group=Second(), interval_s=0.0)
    second.save("mlp", lambda: State({}, {}))
    assert not file_in(tmp_path).exists()
    checkpoint(tmp_path).save("mlp", lambda: State({}, {}))
    second.remove()
    assert file_in(tmp_path).exists()
