"""Heads fitted on a CUDA device are those that a CPU fits. Skipped elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.heads import EvaluateOptions, HeadOptions, compute, evaluate, fit_head, train
from pipeline.heads.features import MemoryFeatures
from pipeline.heads.models import Layers
from pipeline.heads.near_duplicates import nearest
from pipeline.heads.task import FitTask
from tests.heads.clouds import clouds, task
from tests.heads.rings import rings
from tests.heads.test_checkpoint import MLP, Stopped, checkpoint, fit
from tests.heads.test_train import KINDS, options, write_clouds

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_clouds(tmp_path_factory.mktemp("cuda") / "table", (1400, 700, 700), rows_per_file=300)[0]


@pytest.mark.parametrize("memory_gb", [None, 1e-5], ids=["in memory", "streamed"])
@pytest.mark.parametrize("kind", KINDS)
def test_cuda__trains_what_a_cpu_trains(table: str, tmp_path: Path, kind: str, memory_gb: float | None) -> None:
    records = {}
    more = {"dropout": 0.0} if kind == "mlp" else {}  # a GPU draws other random numbers
    for device in ("cpu", "cuda"):
        asked = options(table, tmp_path / device, kind, memory_gb=memory_gb, **more)
        records[device] = train(asked.model_copy(update={"device": device}))
    on_cpu, on_cuda = (records[device]["metrics"]["test"] for device in ("cpu", "cuda"))
    assert on_cuda["top1"] == pytest.approx(on_cpu["top1"], abs=0.015)
    assert on_cuda["log_loss"] == pytest.approx(on_cpu["log_loss"], abs=0.05)
    again = evaluate(EvaluateOptions(table=table, head=str(tmp_path / "cuda")))  # on the CPU
    assert again["metrics"]["top1"] == on_cuda["top1"]
    assert again["metrics"]["log_loss"] == pytest.approx(on_cuda["log_loss"], rel=1e-5)


def fitted(device: str, num_classes: int = 81, **more: object) -> Layers:
    """Fit to so many rows and features that the first passes are in bf16."""
    made = task(clouds(8000, num_classes, 512, 0, spread=4.0), **more)
    asked = HeadOptions(**{**made.options.model_dump(), "device": device})
    head = fit_head(FitTask(asked, made.contract, made.classes, made.train, made.validation))
    assert isinstance(head.model, Layers)
    return head.model


def test_cuda__a_regression_has_a_cpus_coefficients() -> None:
    ((expected, _),), ((got, _),) = (fitted(device, C=0.01).layers for device in ("cpu", "cuda"))
    assert np.abs(got - expected).max() <= 0.02 * np.abs(expected).max()


def test_cuda__features_that_have_no_room_are_brought_there_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fitted("cuda", C=0.01)
    monkeypatch.setattr(compute, "_DEVICE_SHARE", 0.0)
    np.testing.assert_array_equal(fitted("cuda", C=0.01).layers[0][0], expected.layers[0][0])


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_cuda__an_interrupted_mlp_ends_as_one_that_was_not(tmp_path: Path, optimizer: str) -> None:
    """Weights, averages and random numbers go on where they were."""
    rows, validation = rings(300, 0), rings(90, 1)
    asked = {**MLP, "optimizer": optimizer, "learning_rate": 0.01, "device": "cuda"}
    whole = fit(checkpoint(tmp_path / "whole"), rows, validation, **asked)
    with pytest.raises(Stopped):
        fit(checkpoint(tmp_path / "broken", left=3), rows, validation, **asked)
    resumed = fit(checkpoint(tmp_path / "broken"), rows, validation, **asked)
    assert [one["epoch"] for one in resumed.config["history"]] == [1, 2, 3, 4, 5, 6]
    assert isinstance(whole.model, Layers)
    assert isinstance(resumed.model, Layers)
    for layer, expected in zip(resumed.model.layers, whole.model.layers, strict=True):
        np.testing.assert_allclose(layer[0], expected[0], atol=1e-3)


def test_cuda__near_duplicates_are_those_of_a_cpu() -> None:
    X, y = clouds(3000, 7, 256, 0)
    X[2000:2010] = X[:10] * 1.001
    bank, rows = MemoryFeatures(X[:2000], y[:2000]), MemoryFeatures(X[2000:], y[2000:])
    expected, got = (nearest(bank, rows, X.mean(axis=0), 0.99, device) for device in (torch.device("cpu"), CUDA))
    np.testing.assert_array_equal(got.place, expected.place)
    np.testing.assert_array_equal(got.place[:10], np.arange(10))
