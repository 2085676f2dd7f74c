"""The predict job: thresholds, resuming, and how a table is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import predict
from pipeline.backbones import load_backbone
from pipeline.heads import Head, predict_table, save_head
from pipeline.heads.models import Layers
from tests import samples
from tests.integration.processes import ROOT
from tests.jobs.test_jobs import content, rows, run, run_embed
from tests.oracle import check

Capture = pytest.CaptureFixture[str]


def write_head(folder: Path, classes: tuple[str, ...] = ("dark", "bright", "7")) -> Head:
    """Save a head that goes by single colours, so that probabilities differ."""
    contract = load_backbone("pixels").contract
    weight = np.random.default_rng(3).normal(size=(len(classes), 192)).astype(np.float32) / 4
    layers = ((weight, np.zeros(len(classes), np.float32)),)
    model = Layers(np.full(192, 0.4, np.float32), np.full(192, 0.2, np.float32), layers)
    head = Head("logistic", classes, contract, model, 1.3)
    save_head(head, str(folder))
    return head


@pytest.fixture
def head(tmp_path: Path) -> Path:
    write_head(tmp_path / "head")
    return tmp_path / "head"


def median_probability(table: Path) -> float:
    return float(np.median(rows(table)["probability"].to_numpy()))


@pytest.mark.usefixtures("ray_cluster")
def test_predict__below_the_threshold_is_unknown_from_a_table_and_from_a_source(
    image_folder: Path, head: Path, tmp_path: Path, capsys: Capture
) -> None:
    table = tmp_path / "table"
    samples.write(image_folder / "train" / "flower" / "bad.jpg", b"no image")
    allowed = ("--max-reject-fraction", 0.5)
    assert run_embed(capsys, image_folder, table, "--unit-size", 5, *allowed)[0] == 0
    inputs: dict[str, tuple[object, ...]] = {
        "table": ("--head", head, "--table", table),
        "source": ("--head", head, "--source", image_folder, "--unit-size", 5, *allowed),
    }
    for name, given in inputs.items():
        plain, output = tmp_path / f"{name}-plain", tmp_path / f"{name}-unknown"
        code, record = run(capsys, predict, *given, "--output", plain)
        assert (code, record["threshold"], record["unknown"]) == (0, None, None), record["stderr"]
        assert "Unknown" not in record["stderr"]
        threshold = median_probability(plain)
        wanted = (*given, "--output", output, "--threshold", threshold)
        code, record = run(capsys, predict, *wanted)
        assert code == 0, record
        assert (record["threshold"], record["unknown"]) == (threshold, 6)
        assert f"Unknown: 6 of 12, with a probability below {threshold}." in record["stderr"]
        before, after = rows(plain).to_pylist(), rows(output).to_pylist()
        for old, new in zip(before, after, strict=True):
            unknown = old["probability"] < np.float32(threshold)
            assert new == {**old, "predicted_label": "unknown" if unknown else old["predicted_label"]}
        stored = content(output)
        code, record = run(capsys, predict, *wanted)
        assert (code, record["new"]["embedded"], record["unknown"]) == (0, 0, 6)
        for other in ((), ("--threshold", threshold / 2), ("--threshold", threshold, "--unknown-label", "?")):
            code, record = run(capsys, predict, *given, "--output", output, *other)
            assert (code, f"threshold {threshold}" in record["error"]) == (2, True)
        assert content(output) == stored
    assert pq.read_table(tmp_path / "source-unknown" / "rejects")["code"].to_pylist() == ["unsupported"]
    planned = [str(path) for path in image_folder.rglob("*.jpg")]
    assert len(check(str(tmp_path / "source-unknown"), planned).rows) == 12


@pytest.mark.usefixtures("ray_cluster")
def test_predict__a_unit_in_the_actor_has_the_rows_that_its_embeddings_give(
    head: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Rejects between, copies within a unit, and embeddings copied from another table."""
    source, table = tmp_path / "images", tmp_path / "table"
    for i in range(10):
        samples.write(source / "a" / f"{i}.jpg", samples.jpeg(i % 7) if i != 4 else b"")
    assert run_embed(capsys, source, table, "--max-reject-fraction", 0.5, "--limit", 6)[0] == 0
    options = ("--head", head, "--source", source, "--reuse", table, "--max-reject-fraction", 0.5)
    code, record = run(capsys, predict, *options, "--output", tmp_path / "out")
    assert (code, record["ledger"]["embedded"], record["ledger"]["rejected"]) == (0, 9, 1), record["stderr"]
    assert record["new"]["reused"] > 0
    assert run_embed(capsys, source, tmp_path / "whole", "--max-reject-fraction", 0.5)[0] == 0
    assert (
        run(capsys, predict, "--head", head, "--table", tmp_path / "whole", "--output", tmp_path / "by-table")[0] == 0
    )
    one, other = rows(tmp_path / "out"), rows(tmp_path / "by-table")
    assert one.schema.equals(other.schema)
    for name in ("uri", "sha256", "label", "predicted_label", "top5_labels"):
        assert one[name].to_pylist() == other[name].to_pylist()
    np.testing.assert_allclose(one["probability"].to_numpy(), other["probability"].to_numpy(), atol=1e-5)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("bytes_at_once", [1, 2**40])
def test_predict__from_a_table_goes_on_with_the_files_that_are_missing(
    bytes_at_once: int, image_folder: Path, head: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_table, "_BYTES_AT_ONCE", bytes_at_once)
    table, output = tmp_path / "table", tmp_path / "out"
    assert run_embed(capsys, image_folder, table, "--unit-size", 2)[0] == 0
    arguments = ("--head", head, "--table", table, "--output", output)
    code, record = run(capsys, predict, *arguments)
    assert (code, record["new"]["embedded"]) == (0, 12)
    whole = rows(output)
    assert sorted(path.name for path in (output / "data").iterdir()) == sorted(
        path.name for path in (table / "data").iterdir()
    )
    lost = sorted((output / "data").iterdir())[1:4]
    for path in lost:
        path.unlink()
    kept = content(output)
    code, record = run(capsys, predict, *arguments)
    assert (code, record["new"]["embedded"], record["ledger"]["planned"]) == (0, 6, 12)
    assert rows(output).equals(whole)
    assert {name: data for name, data in content(output).items() if name in kept} == kept


def test_predict__refuses_thresholds_that_make_no_sense(head: Path, tmp_path: Path, capsys: Capture) -> None:
    given: tuple[Any, ...] = ("--head", head, "--table", tmp_path / "table", "--output", tmp_path / "out")
    for options, message in (
        (("--unknown-label", "?"), "give that, too"),
        (("--threshold", 0), "greater than 0"),
        (("--threshold", 1.5), "less than or equal to 1"),
        (("--threshold", 0.5, "--unknown-label", "bright"), "has a class named 'bright'"),
    ):
        code, record = run(capsys, predict, *given, *options)
        assert (code, message in record["error"]) == (2, True), record["error"]
    assert not (tmp_path / "out").exists()


def test_predict__what_classifies_imports_neither_pytorch_nor_scipy() -> None:
    code = "import sys, pipeline.predict; print({'torch', 'scipy', 'ray'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert result.stdout.strip() == "set()", result.stderr
