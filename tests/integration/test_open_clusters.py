"""Clusters with and without tokens, on the loopback interface and beyond, as `ray start` makes them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pipeline import exposure
from tests.integration.head import Head, ray_head
from tests.integration.processes import ROOT

_CONNECT = """
import logging, ray
from pipeline.cluster import connect
from pipeline.errors import ConfigError
logging.basicConfig(format="%(message)s")
if {joined}:
    ray.init(address="auto", log_to_driver=False, logging_level=logging.CRITICAL)
try:
    with connect():
        print("connected", [node["NodeManagerAddress"] for node in ray.nodes()])
except ConfigError as error:
    print("refused", error)
print("still joined", ray.is_initialized())
"""


def connect(head: Head, joined: bool = False, **variables: str) -> str:
    """Connect to a cluster in another process, and return what it says."""
    done = subprocess.run(
        [sys.executable, "-c", _CONNECT.format(joined=joined)],
        cwd=ROOT,
        env={**head.environment, "RAY_ADDRESS": head.address, **variables},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def open_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head without tokens, on all interfaces of this machine, which is how `ray start` makes one."""
    with ray_head(tmp_path_factory.mktemp("open"), RAY_AUTH_MODE="disabled") as head:
        if head.address.startswith("127."):
            pytest.skip("this machine has no network interface but loopback")
        yield head


def test_connect__refuses_an_open_cluster(open_cluster: Head) -> None:
    said = connect(open_cluster)
    host = open_cluster.address.rpartition(":")[0]
    assert f"refused The Ray cluster at {open_cluster.address} listens on {host} and requires no token" in said
    assert "still joined False" in said
    # A token of one's own doesn't make the cluster ask for it.
    assert "refused" in connect(open_cluster, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 32)


def test_connect__refuses_one_that_the_process_has_joined_itself_and_leaves_it_joined(open_cluster: Head) -> None:
    said = connect(open_cluster, joined=True)
    assert "refused" in said
    assert "still joined True" in said


def test_connect__an_open_cluster_can_be_allowed(open_cluster: Head) -> None:
    said = connect(open_cluster, VEP_ALLOW_OPEN_CLUSTER="1")
    assert "connected" in said
    assert "who can reach it can run code in it" in said


def test_embed__refuses_an_open_cluster_with_exit_code_2(
    open_cluster: Head, image_folder: Path, tmp_path: Path
) -> None:
    command = (
        "-m",
        "jobs.embed",
        "--source",
        str(image_folder),
        "--table",
        str(tmp_path / "t"),
        "--backbone",
        "pixels",
    )
    environment = {**open_cluster.environment, "RAY_ADDRESS": open_cluster.address}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "requires no token" in done.stderr
    assert "VEP_ALLOW_OPEN_CLUSTER=1" in done.stderr
    assert not (tmp_path / "t" / "data").exists()


def test_connect__takes_an_open_cluster_on_the_loopback_interface(tmp_path: Path) -> None:
    # What Ray does on macOS and Windows.
    with ray_head(tmp_path, RAY_AUTH_MODE="disabled", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0") as head:
        assert head.address.startswith("127.0.0.1:")
        assert exposure.requires_token(head.address) is False
        assert "connected ['127.0.0.1']" in connect(head)


def test_connect__its_own_cluster_requires_a_token(ray_cluster: None) -> None:
    assert exposure.requires_token(ray.get_runtime_context().gcs_address) is True
