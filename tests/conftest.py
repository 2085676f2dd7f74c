"""What all tests share: one Ray cluster a session, generated images, calibrated weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import samples


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
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
