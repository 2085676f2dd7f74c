"""Several workers: equal steps whatever their shares, and the same head as one process fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.heads import Head, TrainOptions, fit_head
from pipeline.heads.group import Alone, share_of
from pipeline.heads.shares import share_task
from pipeline.heads.subset import Subset
from tests.heads.groups import Threads, together
from tests.heads.rings import rings
from tests.heads.tables import write_arrays

MEMORY = 2**26


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    parts = {"train": rings(1001, 0), "validation": rings(400, 1)}
    X = np.concatenate([part.X for part in parts.values()])
    labels = [str(y) for part in parts.values() for y in part.y]
    splits: list[str | None] = [name for name, part in parts.items() for _ in part.y]
    return write_arrays(tmp_path_factory.mktemp("shares") / "table", X, labels, splits, rows_per_file=300)


def heads(table: str, folder: Path, size: int, memory: int = MEMORY, **options: Any) -> list[Head]:
    asked = TrainOptions(table=table, head=str(folder), device="cpu", **options)

    def work(group: Threads) -> Head:
        return fit_head(share_task(asked, group, memory if group.rank == size - 1 else MEMORY))

    if size == 1:
        return [fit_head(share_task(asked, Alone(), memory))]
    return together(size, work)


@pytest.mark.parametrize("memory", [MEMORY, 20_000], ids=["in memory", "streamed because the last has little"])
def test_mlp__workers_learn_what_one_process_learns(table: str, tmp_path: Path, memory: int) -> None:
    options: dict[str, Any] = {"kind": "mlp", "hidden": (64, 32), "epochs": 15, "learning_rate": 0.01, "dropout": 0}
    (one,) = heads(table, tmp_path, 1, **options)
    three = heads(table, tmp_path, 3, memory, **options)
    assert len({head.sha256 for head in three}) == 1
    accuracy = max(entry["validation_top1"] for entry in one.config["history"])
    shared = max(entry["validation_top1"] for entry in three[0].config["history"])
    assert accuracy > 0.9
    assert shared == pytest.approx(accuracy, abs=0.04)


@pytest.mark.parametrize("C", [None, 0.1])
def test_logistic__streamed_workers_find_what_one_process_finds(table: str, tmp_path: Path, C: float | None) -> None:
    (one,) = heads(table, tmp_path, 1, 20_000, kind="logistic", C=C)
    assert "sample_rows" in one.config
    three = heads(table, tmp_path, 3, 20_000, kind="logistic", C=C)
    assert len({head.sha256 for head in three}) == 1
    assert three[0].config["loss"] == pytest.approx(one.config["loss"], rel=2e-2)  # C is chosen on other samples
    if C is not None:
        assert three[0].config["loss"] == pytest.approx(one.config["loss"], rel=1e-5)


def test_logistic__streamed_workers_without_rows_keep_up(table: str, tmp_path: Path) -> None:
    """A subset has three rows, for three of five workers; validation is too large for their memory, so all stream."""
    asked = TrainOptions(table=table, head=str(tmp_path), device="cpu", kind="logistic", C=1.0)

    def work(group: Any) -> Head:
        return fit_head(share_task(asked, group, 20_000, subset=Subset(0, shots=1), keep=False))

    alone = work(Alone())
    assert "sample_rows" not in alone.config  # for there are but three, of a thousand
    five = together(5, work)
    assert len({head.sha256 for head in five}) == 1
    assert five[0].config["loss"] == pytest.approx(alone.config["loss"], rel=1e-4)


def test_mlp__a_worker_without_rows_keeps_up(tmp_path: Path) -> None:
    rows = rings(5, 0)
    table = write_arrays(tmp_path / "table", rows.X, [str(y) for y in rows.y], ["train"] * 3 + ["validation"] * 2)
    four = heads(table, tmp_path, 4, kind="mlp", hidden=(8,), epochs=2, batch_size=4)
    assert len({head.sha256 for head in four}) == 1
    assert np.isfinite(four[0].config["history"][-1]["loss"])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_share_of__each_row_is_in_one_share_and_shares_are_equal(size: int) -> None:
    mask = np.random.default_rng(0).random(30) < 0.5

    class Group(Alone):
        def __init__(self, rank: int) -> None:
            self.rank, self.size = rank, size

    shares = [share_of(mask, Group(rank)) for rank in range(size)]
    np.testing.assert_array_equal(np.sum(shares, axis=0), mask.astype(int))
    counts = [int(share.sum()) for share in shares]
    assert max(counts) - min(counts) <= 1
