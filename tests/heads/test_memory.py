"""A table that is larger than the memory for features is trained on within that memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.heads.tables import write_arrays

#: Trains a head on a small table, then on a large one, and tells the peaks of its memory.
SCRIPT = """
import json, re, sys
from pathlib import Path
import torch
from pipeline.heads import TrainOptions, train

def fit(table, kind, memory_gb):
    options = {"kind": kind, "C": 1e-4, "hidden": (32,), "epochs": 1, "batch_size": 512, "device": "cpu"}
    record = train(TrainOptions(table=table, head=f"{table}-{kind}", memory_gb=memory_gb, **options))
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    return {"streamed": record["config"]["streamed"], "peak": peak}

torch.set_num_threads(1)
small, large, kind, memory_gb = sys.argv[1:]
print(json.dumps([fit(table, kind, float(memory_gb)) for table in (small, large)]))
"""
MEMORY_GB = 0.25
NUM_ROWS, DIM = 180_000, 512


def write(folder: Path, count: int) -> str:
    random = np.random.default_rng(0)
    y = random.integers(0, 10, count)
    X = random.normal(size=(10, DIM))[y] + 3 * random.standard_normal((count, DIM), np.float32)
    return write_arrays(folder, X, [str(i) for i in y], dtype="float16", rows_per_file=1000)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("memory")
    return [write(folder / "small", 2000), write(folder / "large", NUM_ROWS)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ridge", "mlp", "logistic"])
def test_train__of_a_large_table_keeps_to_its_memory(tables: list[str], kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *tables, kind, str(MEMORY_GB)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=200,
    )
    before, after = json.loads(done.stdout)
    allowed = MEMORY_GB * 2**30
    assert allowed < NUM_ROWS * DIM * (2 + 4) / 2  # what it would take in memory: as it is stored, and in float32
    assert after["streamed"]
    assert not before["streamed"]
    assert after["peak"] - before["peak"] < allowed
