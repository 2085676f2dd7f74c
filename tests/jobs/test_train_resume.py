"""jobs.train killed with SIGKILL: the same command goes on, and ends with the head that it would have made."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.heads import load_head
from tests.heads.rings import rings
from tests.heads.tables import write_arrays
from tests.integration.processes import Surroundings, wait_until

#: An epoch takes some tenths of a second, so that one that goes on has fewer of them to do.
OPTIONS = ("--kind", "mlp", "--hidden", "[1024, 1024]", "--epochs", "60", "--patience", "60", "--device", "cpu")


@pytest.mark.slow
@pytest.mark.faults
def test_train__killed_goes_on_from_its_checkpoint(tmp_path: Path, surroundings: Surroundings) -> None:
    rows = rings(3000, 0)
    table = write_arrays(tmp_path / "table", rows.X, [str(y) for y in rows.y])
    surroundings.variables["OMP_NUM_THREADS"] = "1"
    heads = {name: tmp_path / name for name in ("whole", "killed")}

    code, _, err = surroundings.run("train", "--table", table, "--head", heads["whole"], *OPTIONS)
    assert code == 0, err

    process = surroundings.start("train", "--table", table, "--head", heads["killed"], *OPTIONS)
    checkpoint = heads["killed"] / "checkpoint.safetensors"
    wait_until(lambda: checkpoint.exists() or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (heads["killed"] / "head.json").exists()
    reached = _epoch(checkpoint)
    assert 0 < reached < 60

    code, out, err = surroundings.run("train", "--table", table, "--head", heads["killed"], *OPTIONS, "--json")
    assert code == 0, err
    assert "Going on from the checkpoint" in err
    assert len(json.loads(out)["config"]["history"]) == 60
    whole, resumed = load_head(str(heads["whole"])), load_head(str(heads["killed"]))
    assert resumed.sha256 == whole.sha256
    assert resumed.config["history"] == whole.config["history"]
    assert not checkpoint.exists()
    np.testing.assert_array_equal(resumed.scores(rows.X[:10]), whole.scores(rows.X[:10]))


def _epoch(checkpoint: Path) -> int:
    data = checkpoint.read_bytes()
    header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found = re.search(r'"epoch": (\d+)', header["__metadata__"]["notes"])
    assert found
    return int(found[1])
