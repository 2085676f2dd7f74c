"""Predicting, killed in the middle: the same command finishes it, and nothing is done twice or lost."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.faults.test_process_faults import at_work, write_images
from tests.integration.processes import Surroundings, wait_until
from tests.jobs.test_predict import write_head
from tests.oracle import check

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def run(surroundings: Surroundings, job: str, *options: object) -> tuple[int, dict[str, Any], str]:
    code, out, err = surroundings.run(job, *options, "--json")
    return code, json.loads(out), err


def kill_after(surroundings: Surroundings, output: Path, committed: int, *options: object) -> dict[Path, bytes]:
    """Kill the job once some files are there; return those that are there when all has come to rest."""
    surroundings.set_failpoints({"point": "data_put", "action": "sleep", "seconds": 0.3})
    process = surroundings.start("predict", *options)
    wait_until(lambda: len(list(output.glob("data/*.parquet"))) >= committed, 120)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_until(lambda: not at_work(surroundings), 60)
    surroundings.variables.clear()
    return {path: path.read_bytes() for path in output.glob("data/*.parquet")}


def test_predict__kill_9_with_a_source(surroundings: Surroundings, tmp_path: Path) -> None:
    planned, output = write_images(tmp_path / "images", 24), tmp_path / "out"
    write_head(tmp_path / "head")
    options = (
        *("--source", tmp_path / "images", "--head", tmp_path / "head", "--output", output),
        *("--threshold", 0.6, "--unit-size", 2),
    )
    before = kill_after(surroundings, output, 2, *options)
    code, record, err = run(surroundings, "predict", *options)
    assert (code, record["ledger"]["embedded"]) == (0, 24), err
    assert record["new"]["embedded"] == 24 - 2 * len(before) > 0
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(check(str(output), planned).rows) == sorted(planned)
    labels = pq.read_table(output / "data")["predicted_label"].to_pylist()
    assert labels.count("unknown") == record["unknown"]


def test_predict__kill_9_with_a_table(surroundings: Surroundings, tmp_path: Path) -> None:
    planned, table, output = write_images(tmp_path / "images", 40), tmp_path / "table", tmp_path / "out"
    write_head(tmp_path / "head")
    arguments = ("--source", tmp_path / "images", "--table", table, "--backbone", "pixels", "--unit-size", 1)
    assert run(surroundings, "embed", *arguments)[0] == 0
    options = ("--table", table, "--head", tmp_path / "head", "--output", output)
    before = kill_after(surroundings, output, 8, *options)
    assert 8 <= len(before) < 40
    code, record, err = run(surroundings, "predict", *options)
    assert (code, record["ledger"]["planned"], record["new"]["embedded"]) == (0, 40, 40 - len(before)), err
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(pq.read_table(output / "data")["uri"].to_pylist()) == sorted(planned)
    assert not list(output.rglob("*.tmp"))
