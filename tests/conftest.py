"""What all tests share: one Ray cluster a session, generated images, calibrated weights."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import s3, samples
from tests.integration.processes import Surroundings


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests a cache of their own, for converted networks: the options' defaults are made at import."""
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache-")
    config.add_cleanup(lambda: shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True))


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[None]:
    """Credentials that any local S3 server takes, and none of the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in s3.ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def s3_server(s3_environment: None) -> Iterator[s3.S3Server]:
    """A local S3 server for the whole session; each test makes buckets of its own."""
    with s3.serve() as server:
        yield server


@pytest.fixture(scope="session")
def ray_cluster(s3_environment: None) -> Iterator[None]:
    """One quiet Ray cluster for the whole session; jobs called in this process use it."""
    from pipeline import cluster

    with cluster.connect():
        yield


@pytest.fixture(scope="session")
def calibrated_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the Microsoft Vision network whose batch norms know real images; see `samples.calibrate`."""
    path = tmp_path_factory.mktemp("weights") / "calibrated.safetensors"
    samples.calibrate(path)
    return path


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Twelve small photographs: train and test, two classes."""
    return samples.write_folder(tmp_path / "images", per_class=3)


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[Surroundings]:
    """Where a job runs as a process of its own."""
    value = Surroundings(tmp_path / "surroundings")
    yield value
    shutil.rmtree(value.temporary, ignore_errors=True)
