"""A cluster: its description is valid, and the jobs run on one unchanged."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.integration.head import ray_head
from tests.integration.processes import ROOT


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return value


def test_cluster_yaml__is_valid_for_rays_launcher(description: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(description)
    validate_config(prepared)
    with pytest.raises(Exception, match="nonsense"):
        validate_config({**prepared, "nonsense": 1})


def test_cluster_yaml__head_does_no_work_and_workers_are_spot_gpus_from_none(description: dict[str, Any]) -> None:
    types = description["available_node_types"]
    head = types[description["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    (worker,) = (value for value in types.values() if value is not head)
    assert worker["min_workers"] == 0
    assert worker["resources"]["GPU"] > 0
    assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"


def test_cluster_yaml__starts_ray_with_a_token_and_a_private_dashboard(description: dict[str, Any]) -> None:
    head, workers = (" ".join(description[f"{kind}_start_ray_commands"]) for kind in ("head", "worker"))
    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in workers
    assert "--dashboard-host=127.0.0.1" in head
    assert "--num-cpus=0" in head
    assert "/home/ray/.ray/auth_token" in description["file_mounts"]


@pytest.fixture
def running_cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A head that requires a token; yields the environment that reaches it."""
    with ray_head(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16)) as head:
        yield {**head.environment, "RAY_API_SERVER_ADDRESS": head.dashboard}


def test_jobs__submitted_to_a_running_cluster(
    running_cluster: dict[str, str], image_folder: Path, tmp_path: Path
) -> None:
    command = [
        *(str(Path(sys.executable).with_name("ray")), "job", "submit", "--working-dir", ".", "--"),
        *("python", "-m", "jobs.embed", "--source", str(image_folder), "--table", str(tmp_path / "table")),
        *("--backbone", "pixels", "--unit-size", "5", "--json"),
    ]
    result = subprocess.run(command, cwd=ROOT, env=running_cluster, capture_output=True, text=True, timeout=180)
    for _ in range(30):  # the dashboard answers a little before the agent that takes jobs is there
        if "No available agent to submit job" not in result.stderr:
            break
        time.sleep(2)
        result = subprocess.run(command, cwd=ROOT, env=running_cluster, capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Ray dashboard: http://127.0.0.1:" in result.stdout + result.stderr
    line = next(line for line in result.stdout.splitlines() if line.startswith('{"job"'))
    assert json.loads(line)["ledger"]["embedded"] == 12
    assert len(pq.read_table(tmp_path / "table" / "data")) == 12
