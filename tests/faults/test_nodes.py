"""Nodes of a cluster that are lost, and that join, while a job runs: jobs and nodes are processes of their own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import samples
from tests.faults.nodes import NODE_CPUS, Nodes, cluster_of_nodes
from tests.integration.processes import Surroundings, wait_until
from tests.oracle import check

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(500)]

#: What each node does: log what comes by, and take its time to embed it, so that a run is long enough to meddle with.
WORK = (
    *({"point": point, "action": "log"} for point in ("read", "embed", "committed")),
    {"point": "embed", "action": "sleep", "seconds": 0.4},
)
UNIT_SIZE, PATIENCE_S = 2, 25


@pytest.fixture
def nodes(surroundings: Surroundings) -> Iterator[Nodes]:
    with cluster_of_nodes(surroundings) as value:
        yield value


class Job:
    """One command, to be started more than once."""

    def __init__(self, nodes: Nodes, folder: Path, num_images: int, *options: object) -> None:
        source = samples.write_folder(folder / "images", per_class=num_images // 4)
        self.planned = [str(path) for path in source.rglob("*.jpg")]
        self.table, self._start = folder / "table", nodes.surroundings.start
        self._options = ("--source", source, "--table", self.table, "--backbone", "pixels", "--unit-size", UNIT_SIZE)
        self._options = (*self._options, "--stall-timeout-s", PATIENCE_S, "--json", *options)

    def start(self) -> subprocess.Popen[str]:
        return self._start("embed", *self._options)

    def committed(self) -> dict[str, bytes]:
        files = (path for path in self.table.glob("data/*.parquet") if not path.name.startswith("."))
        return {path.name: path.read_bytes() for path in files}

    def wait_for(self, num_units: int) -> None:
        wait_until(lambda: len(self.committed()) >= num_units, 120)

    def end(self, process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
        out, err = process.communicate(timeout=300)
        return process.returncode, json.loads(out), err


@pytest.mark.parametrize("options", [(), ("--num-actors", 2)], ids=["a pool as large as the cluster", "a fixed pool"])
def test_embed__a_lost_node_costs_no_image(nodes: Nodes, tmp_path: Path, options: tuple[object, ...]) -> None:
    job = Job(nodes, tmp_path, 240, *options)
    for name in ("a", "b"):
        nodes.add(name, NODE_CPUS, *WORK)
    process = job.start()
    wait_until(lambda: min(nodes.units(name, "embed").total() for name in ("a", "b")) >= 5, 120)
    before = job.committed()
    time.sleep(1)  # a task that has put its file and not yet told the driver is lost with its node, and done again
    nodes.remove("b")
    code, record, err = job.end(process)
    assert code == 0, err
    assert record["ledger"]["embedded"] == 240
    assert "node of the cluster was lost" in err  # what was on the node, or waited for it, was done in a second pass
    assert {name: data for name, data in job.committed().items() if name in before} == before
    embedded = nodes.units("a", "embed") + nodes.units("b", "embed")
    assert {embedded[name.removesuffix(".parquet")] for name in before} == {1}
    check(str(job.table), job.planned)


def test_embed__a_node_that_joins_gets_work_of_every_kind(nodes: Nodes, tmp_path: Path) -> None:
    job = Job(nodes, tmp_path, 400)
    nodes.add("a", NODE_CPUS, *WORK)
    process = job.start()
    job.wait_for(3)
    nodes.add("b", NODE_CPUS, *WORK)
    code, record, err = job.end(process)
    assert (code, record["ledger"]["embedded"]) == (0, 400), err
    for point in ("read", "embed", "committed"):
        assert nodes.units("b", point).total() > 0, point
    check(str(job.table), job.planned)


def test_embed__no_node_left_ends_in_a_time_out_and_can_be_resumed(nodes: Nodes, tmp_path: Path) -> None:
    job = Job(nodes, tmp_path, 80)
    nodes.add("a", NODE_CPUS, *WORK)
    process = job.start()
    job.wait_for(5)
    nodes.remove("a")
    code, record, err = job.end(process)
    assert (code, record["status"]) == (1, "pending"), err
    assert f"(--stall-timeout-s {PATIENCE_S})" in err
    assert "run the same command again" in err
    before = job.committed()
    nodes.add("b", NODE_CPUS, *WORK)
    code, record, err = job.end(job.start())
    assert (code, record["new"]["embedded"]) == (0, 80 - UNIT_SIZE * len(before)), err
    assert {name: data for name, data in job.committed().items() if name in before} == before
    check(str(job.table), job.planned)
