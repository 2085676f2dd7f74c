"""Heads trained by several workers of Ray Train are those that one process trains."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors import safe_open

from pipeline.errors import ConfigError
from pipeline.heads import TrainOptions, load_head, train
from tests.heads.rings import rings
from tests.heads.tables import write_arrays

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """1,501 training rows in files of 400: shares that are no whole files, and differ by a row."""
    parts = {"train": rings(1501, 0, spread=0.3), "validation": rings(500, 1, 0.3), "test": rings(600, 2, 0.3)}
    X = np.concatenate([part.X for part in parts.values()])
    labels = [str(y) for part in parts.values() for y in part.y]
    splits: list[str | None] = [name for name, part in parts.items() for _ in part.y]
    return write_arrays(tmp_path_factory.mktemp("workers") / "table", X, labels, splits, rows_per_file=400)


def records(table: str, folder: Path, **options: Any) -> list[dict[str, Any]]:
    """Train alone and in two workers."""
    return [record(table, folder / str(workers), device="cpu", num_workers=workers, **options) for workers in (0, 2)]


def record(table: str, head: Path, **options: Any) -> dict[str, Any]:
    from pipeline.train_workers import WorkersFit

    asked = TrainOptions(table=table, head=str(head), **options)
    if not asked.num_workers:
        return train(asked)
    with WorkersFit(asked) as fit:
        return train(asked, fit)


@pytest.mark.parametrize("kind", ["logistic", "ridge", "mlp"])
def test_two_workers__train_what_one_process_trains(ray_cluster: None, table: str, tmp_path: Path, kind: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    small: dict[str, Any] = {"hidden": (64, 32), "epochs": 15, "learning_rate": 0.01, "dropout": 0.0}
    options = small if kind == "mlp" else {}
    one, two = records(table, tmp_path, kind=kind, **options)
    heads = [load_head(str(tmp_path / name)) for name in ("0", "2")]
    X = rings(200, 3).X
    if kind == "mlp":
        assert one["metrics"]["test"]["top1"] > 0.85
        assert two["metrics"]["test"]["top1"] == pytest.approx(one["metrics"]["test"]["top1"], abs=0.03)
        assert len(two["config"]["history"]) == len(one["config"]["history"]) == 15
    else:
        chosen = "C" if kind == "logistic" else "alpha"
        assert two["config"][chosen] == one["config"][chosen]
        np.testing.assert_allclose(heads[1].probabilities(X), heads[0].probabilities(X), atol=5e-3)
    assert two["head_sha256"] == heads[1].sha256
    assert two["metrics"]["train"]["num_rows"] == 1501
    assert signal.getsignal(signal.SIGINT) is before  # Ray's own is not left behind
    assert sorted(path.name for path in (tmp_path / "2").iterdir()) == ["head.json", "head.safetensors"]


def test_two_workers__train_the_heads_of_a_learning_curve_and_of_other_seeds(
    ray_cluster: None, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere_else(*_: object) -> None:
        raise AssertionError("fitted in this process")

    options: dict[str, Any] = {"kind": "ridge", "alpha": 1.0, "shots": (5,), "seeds": 2, "validation_fraction": 0.5}
    one = record(table, tmp_path / "one", device="cpu", **options)
    monkeypatch.setattr("pipeline.heads.fit.fit_head", nowhere_else)
    monkeypatch.setattr("pipeline.heads.fit_head", nowhere_else)
    two = record(table, tmp_path / "two", device="cpu", num_workers=2, **options)
    for expected, point in zip(one["learning_curve"]["points"], two["learning_curve"]["points"], strict=True):
        assert point["num_rows"] == expected["num_rows"]
        assert point["top1"] == pytest.approx(expected["top1"], abs=2 / 600)
    for part, metrics in one["seeds"]["metrics"].items():
        assert two["seeds"]["metrics"][part]["top1"]["mean"] == pytest.approx(metrics["top1"]["mean"], abs=5e-3)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["head.json", "head.safetensors"]


def workers() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if any("RayTrainWorker" in part for part in process.cmdline())
    ]


def test_a_worker_that_is_killed__the_training_goes_on_from_its_last_epoch(
    ray_cluster: None, table: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"hidden": (64, 32), "epochs": 80, "patience": 80, "batch_size": 32}
    head = tmp_path / "head"
    killed: list[dict[str, Any]] = []

    def kill_one() -> None:
        while not (head / "checkpoint.safetensors").exists():
            time.sleep(0.05)
        with safe_open(head / "checkpoint.safetensors", "np") as file:
            killed.append(json.loads(file.metadata()["notes"]))
        workers()[0].kill()

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    found = record(table, head, kind="mlp", device="cpu", num_workers=2, **options)
    thread.join(1)
    (reached,) = killed
    assert 0 < reached["epoch"] < 80
    assert [one["epoch"] for one in found["config"]["history"]] == list(range(1, 81))
    # What it had learnt is in the history, epoch by epoch, and was not learnt again.
    assert found["config"]["history"][: reached["epoch"]] == reached["history"]
    assert found["metrics"]["test"]["top1"] > 0.85


def test_knn__needs_no_workers(table: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--num-workers 0 for --kind knn"):
        records(table, tmp_path, kind="knn")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["logistic", "ridge", "mlp"])
def test_a_worker_with_a_gpu__trains_what_this_process_trains(
    ray_cluster: None, table: str, tmp_path: Path, kind: str
) -> None:
    small: dict[str, Any] = {"hidden": (64, 32), "epochs": 15, "learning_rate": 0.01, "dropout": 0.0}
    options = small if kind == "mlp" else {}
    here = record(table, tmp_path / "here", kind=kind, device="cuda", **options)
    there = record(table, tmp_path / "there", kind=kind, num_workers=1, use_gpu=True, **options)
    assert there["metrics"]["test"]["top1"] == pytest.approx(here["metrics"]["test"]["top1"], abs=0.01)
