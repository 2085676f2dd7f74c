"""Converted networks in the cache: the network itself is needed once, and no file there can do harm."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from pipeline.backbones import Backbone, load_backbone
from pipeline.engines import embed, load_engine
from pipeline.engines.openvino import import_openvino
from tests import samples
from tests.integration.processes import ROOT

PIXELS = np.stack([samples.crop(seed, 32, 32) for seed in range(3)])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("pixels")


@pytest.fixture(scope="module")
def expected(backbone: Backbone) -> np.ndarray:
    return embed(load_engine(backbone, "openvino", "fp32"), PIXELS)


def vectors(backbone: Backbone, cache: Path, batch_size: int = 2) -> np.ndarray:
    return embed(load_engine(backbone, "openvino", "fp32", batch_size=batch_size, cache_dir=str(cache)), PIXELS)


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def without_network(backbone: Backbone) -> Backbone:
    def load() -> NoReturn:
        raise AssertionError("the network is not needed")

    return Backbone(backbone.preprocessing, backbone.contract, load)


def test_load_engine__needs_the_network_once(backbone: Backbone, expected: np.ndarray, tmp_path: Path) -> None:
    assert np.array_equal(vectors(backbone, tmp_path), expected)
    assert [path.suffix for path in files(tmp_path)] == [".safetensors", ".sha256"]
    for batch_size in (1, 3):
        assert np.array_equal(vectors(without_network(backbone), tmp_path, batch_size), expected)


def test_load_engine__another_contract_is_another_network(backbone: Backbone, tmp_path: Path) -> None:
    vectors(backbone, tmp_path)
    other = Backbone(backbone.preprocessing, replace(backbone.contract, weights_sha256="00"), lambda: backbone.network)
    with pytest.raises(AssertionError, match="not needed"):
        vectors(without_network(other), tmp_path)
    vectors(other, tmp_path)
    assert len(files(tmp_path)) == 4


@pytest.mark.parametrize("damage", ["cut", "changed", "no record", "half written"])
def test_load_engine__a_damaged_file_is_made_anew(
    backbone: Backbone, expected: np.ndarray, damage: str, tmp_path: Path
) -> None:
    vectors(backbone, tmp_path)
    network, record = files(tmp_path)
    content = network.read_bytes()
    if damage == "cut":
        network.write_bytes(content[:-20])
    elif damage == "changed":
        network.write_bytes(content[:-20] + bytes(20))
    elif damage == "no record":
        record.unlink()
    else:
        network.unlink()
        network.with_name(f".{network.name}.0123456789ab.tmp").write_bytes(content[:100])
    with pytest.raises(AssertionError, match="not needed"):
        vectors(without_network(backbone), tmp_path)
    assert np.array_equal(vectors(backbone, tmp_path), expected)
    assert files(tmp_path) == [network, record]
    assert np.array_equal(vectors(without_network(backbone), tmp_path), expected)


def test_load_engine__a_cache_that_cannot_be_had_is_no_trouble(
    backbone: Backbone, expected: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(vectors(backbone, cache), expected)
    assert "can't be kept" in caplog.text
    assert cache.is_file()


def test_load_engine__no_space_to_keep_it_is_no_trouble(
    backbone: Backbone,
    expected: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("basic_ios::clear: iostream error")  # what OpenVINO says of a full disk

    monkeypatch.setattr(import_openvino(), "save_model", full)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(vectors(backbone, tmp_path), expected, rtol=1e-6)
    assert "The converted network can't be kept" in caplog.text
    assert files(tmp_path) == []


def test_load_engine__imports_no_pytorch_where_the_network_is_there(backbone: Backbone, tmp_path: Path) -> None:
    vectors(backbone, tmp_path)
    program = (
        "import json, sys\n"
        "import pipeline.graph\n"
        "from pipeline.backbones import load_backbone\n"
        "from pipeline.contract import FeatureContract\n"
        "from pipeline.engines import load_engine\n"
        "contract = FeatureContract.from_json(json.loads(sys.argv[1]), 'the test')\n"
        "backbone = load_backbone('pixels', expected=contract)\n"
        "load_engine(backbone, 'openvino', 'fp32', device='cpu', cache_dir=sys.argv[2])\n"
        "assert 'torch' not in sys.modules\n"
    )
    contract = json.dumps(backbone.contract.to_json())
    command = [sys.executable, "-c", program, contract, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
