"""Whole jobs as users start them: streams, stray files, Ctrl-C, kill -9."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests import samples
from tests.integration.processes import Surroundings, wait_until

PIXELS = ("--backbone", "pixels")
#: Where converted networks are kept, in the user's cache folder.
CACHE = "vision-embedding-pipeline/networks"


def uris(table: Path) -> list[str]:
    return pq.read_table(table / "data")["uri"].to_pylist()


def test_embed__streams_files_and_exit_code(surroundings: Surroundings, image_folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    surroundings.cache = tmp_path / "cache"
    code, out, err = surroundings.run("embed", "--source", image_folder, "--table", table, *PIXELS, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert out.count("\n") == 1
    assert record["ledger"]["embedded"] == 12
    lines = err.splitlines()
    expected = ("images planned", "Engine openvino on cpu", "images (", "Embedded 12", "Ledger: 12", f"Table: {table}")
    assert [line for line in lines if not any(part in line for part in expected)] == []
    head, output = tmp_path / "head", tmp_path / "output"
    for job, *options in (("train",), ("evaluate",), ("predict", "--output", output)):
        code, out, err = surroundings.run(job, "--table", table, "--head", head, *options)
        assert (code, out) == (0, ""), err
    assert surroundings.stray_files() == []
    cached = [path for path in surroundings.cache.rglob("*") if path.is_file()]
    assert {path.relative_to(surroundings.cache).parent for path in cached} == {Path(CACHE)}
    # The converted network, and what is known of the weights.
    assert sorted(path.suffix for path in cached) == [".lock", ".safetensors", ".sha256", ".sha256"]
    names = ["cache", "head", "images", "output", "surroundings", "table"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_embed__ctrl_c_stops_soon_and_the_same_command_goes_on(surroundings: Surroundings, tmp_path: Path) -> None:
    source, table = samples.write_folder(tmp_path / "images", per_class=8), tmp_path / "table"
    surroundings.set_failpoints({"point": "embed", "action": "sleep", "seconds": 0.5})
    arguments = ("--source", source, "--table", table, *PIXELS, "--unit-size", 2)
    process = surroundings.start("embed", *arguments)
    wait_until(lambda: bool(list(table.glob("data/*.parquet"))), 120)
    os.kill(process.pid, signal.SIGINT)
    started = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - started < 15
    assert process.returncode == 1
    assert "run the same command again" in err
    assert "Traceback" not in err
    before = {path: path.read_bytes() for path in table.glob("data/*.parquet")}
    assert len(uris(table)) < 32
    surroundings.variables.clear()
    code, out, err = surroundings.run("embed", *arguments, "--json")
    assert code == 0, err
    assert json.loads(out)["new"]["embedded"] == 32 - 2 * len(before)
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(uris(table)) == sorted(str(path) for path in source.rglob("*.jpg"))
    assert surroundings.stray_files() == []


def test_embed__cuda_without_a_gpu_is_one_clear_error(
    surroundings: Surroundings, image_folder: Path, tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    arguments = ("--source", image_folder, "--table", tmp_path / "table", *PIXELS, "--device", "cuda")
    code, out, err = surroundings.run("embed", *arguments)
    assert (code, out) == (2, "")
    assert "Error: Asked for --device cuda, but PyTorch" in err
    assert not (tmp_path / "table").exists()


@pytest.mark.faults
@pytest.mark.parametrize("committed", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_embed__kill_9_of_the_driver_loses_nothing(
    surroundings: Surroundings, image_folder: Path, tmp_path: Path, committed: int
) -> None:
    table = tmp_path / "table"
    arguments = ("--source", image_folder, "--table", table, *PIXELS, "--unit-size", 1, "--num-actors", 1)
    process = surroundings.start("embed", *arguments)
    wait_until(lambda: table.exists() and len(list(table.glob("data/*.parquet"))) >= committed, 120)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    before = {path: path.read_bytes() for path in table.glob("data/*.parquet")}
    code, out, err = surroundings.run("embed", *arguments, "--json")
    assert code == 0, err
    ledger = json.loads(out)["ledger"]
    assert ledger == {"planned": 12, "embedded": 12, "rejected": 0, "pending": 0, "reused": 0}
    assert sorted(uris(table)) == sorted(str(path) for path in image_folder.rglob("*.jpg"))
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_demo__reaches_its_accuracy(surroundings: Surroundings, tmp_path: Path) -> None:
    code, out, err = surroundings.run("demo", "--output", tmp_path / "demo", "--json", timeout_s=400)
    assert code == 0, err
    record = json.loads(out)
    assert record["embed"]["ledger"] == {"planned": 1797, "embedded": 1797, "rejected": 0, "pending": 0, "reused": 0}
    assert record["train"]["metrics"]["test"]["top1"] > 0.95
    assert record["train"]["metrics"]["test"]["num_rows"] == 360
    for part in ("RANDOM", "images/s", "top-1 0.9", str(tmp_path / "demo" / "table"), "jobs.embed --source PATH"):
        assert part in err
