"""From what was measured to a record: for shards, for GPUs, for other batch sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from pipeline.doctor import DoctorOptions
from pipeline.doctor.estimate import Node
from pipeline.doctor.model import BatchPace, Sweep
from pipeline.doctor.pace import Pace
from pipeline.doctor.reading import Decoded
from pipeline.doctor.record import Measured, make_record
from pipeline.doctor.sample import Count, Listed
from pipeline.doctor.writing import Written
from pipeline.engines import EngineInfo
from pipeline.refs import REF_SCHEMA

CPU_NODE = Node(cores=4, on_gpu=False, actors=1, workers=4)
GPU_NODE = Node(cores=16, on_gpu=True, actors=8, workers=12)
REFS = pa.Table.from_pylist([{"uri": f"{i}.tar", "version": "1"} for i in range(10)], schema=REF_SCHEMA)
#: Reading takes 0.1 ms of a core, decoding 1, writing 0.1; an image has 100 kB, a row 8 kB.
MEASURED = Measured(
    Listed(REFS, 2.0, complete=False),
    Count(4_000_000, 1_000_000, "extrapolated"),
    Pace(1000, 0.1, 0.1, 100_000_000),
    Decoded(Pace(100, 0.1, 0.1, 10_000_000), Counter(JPEG=80), ((640, 480),) * 60, Counter(truncated=20), ("a", "cut")),
    Sweep(EngineInfo("openvino", "bf16", "a processor", 8), (BatchPace(8, 100.0), BatchPace(16, 120.0))),
    Written(Pace(1024, 0.05, 0.1024, 8_192_000), {}),
)


def record(node: Node, measured: Measured = MEASURED, containers: bool = False, **options: Any) -> dict[str, Any]:
    return make_record(DoctorOptions(source="s", table="t", **options), node, measured, containers)


def test_make_record__the_faster_batch_where_the_model_is_the_bottleneck() -> None:
    found = record(CPU_NODE)
    assert found["bottleneck"]["stage"] == "model"
    assert found["rates"]["model"] == {"images_per_s": 120.0, "by_batch_size": {"8": 100.0, "16": 120.0}}
    assert found["bottleneck"]["core_ms"] == pytest.approx(
        {"reading": 0.1, "decoding": 1.0, "model": 1000 * 4 / 120, "writing": 0.1}, rel=1e-3
    )
    assert found["images_per_s"] == pytest.approx(4 / (0.0012 + 4 / 120), rel=1e-3)
    assert found["recommended"] == {
        "num_actors": 1,
        "batch_size": 16,
        "decode_workers": 4,
        "cores_for_devices": None,
        "unit_size": 512,
        "command": "python -m jobs.embed --source s --table t --batch-size 16",
    }
    assert found["sample"]["reject_share"] == 0.25
    estimate = found["estimate"]
    assert (estimate["rows"], estimate["table_bytes"]) == (3_000_000, 3_000_000 * 8000)
    assert (estimate["units"], estimate["listing_s"]) == (7813, 8.0)
    assert estimate["seconds"] == pytest.approx(8 + 4_000_000 / (4 / (0.0012 + 4 / 120)))


def test_make_record__of_shards_each_is_a_unit() -> None:
    found = record(CPU_NODE, containers=True)
    assert (found["estimate"]["units"], found["recommended"]["unit_size"]) == (40, None)
    assert "--unit-size" not in found["recommended"]["command"]


def test_make_record__no_more_gpus_than_the_cores_can_feed() -> None:
    model = replace(MEASURED.model, paces=(BatchPace(256, 5000.0), BatchPace(512, 9000.0)))
    found = record(GPU_NODE, replace(MEASURED, model=model), nodes=2)
    assert found["bottleneck"]["stage"] == "reading"  # 10,000 images/s, 12 workers could decode 10,909
    measured = replace(MEASURED, model=model, reading=Pace(1000, 0.01, 0.1, 100_000_000))
    found = record(GPU_NODE, measured, nodes=2)
    assert (found["bottleneck"]["stage"], found["images_per_s"]) == ("decoding", pytest.approx(12 / 0.0011, rel=1e-3))
    assert found["bottleneck"]["advice"] == "About 44 cores would keep the device busy; this node has 16."
    assert found["recommended"]["cores_for_devices"] == 44
    assert found["recommended"]["num_actors"] == 6  # of 16 on two nodes
    assert found["recommended"]["command"].endswith("--table t --num-actors 6")
    assert found["recommended"]["batch_size"] == 256
