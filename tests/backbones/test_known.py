"""What is known of weights without loading them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.backbones import BACKBONES, load_backbone
from pipeline.backbones.known import KnownWeights
from pipeline.errors import ContractMismatch, WeightsError

NAME = "microsoftvision-resnet50"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_load_backbone__knows_weights_from_an_earlier_time(cache: Path) -> None:
    first, again = (load_backbone(NAME, "random:0", cache_dir=str(cache)) for _ in range(2))
    assert again.contract == first.contract == load_backbone(NAME, "random:0").contract
    assert torch.equal(again.network.conv1.weight, first.network.conv1.weight)


def test_load_backbone__other_weights_are_not_known(cache: Path, tmp_path: Path) -> None:
    def load(weights: str) -> str:
        return load_backbone(NAME, weights, cache_dir=str(cache)).contract.weights_sha256

    path, tensors = tmp_path / "w.safetensors", load_backbone(NAME, "random:1").network.state_dict()
    save_file(tensors, path)
    assert load("random:0") != load("random:1") == load(str(path))
    save_file({**tensors, "conv1.weight": tensors["conv1.weight"] + 1}, path)
    assert load(str(path)) != load("random:1")


@pytest.mark.parametrize("damage", [b"", b"0" * 63, b"\xff" * 64])
def test_load_backbone__a_damaged_note_is_none(cache: Path, damage: bytes) -> None:
    contract = load_backbone(NAME, "random:0", cache_dir=str(cache)).contract
    (note,) = cache.rglob("*.sha256")
    note.write_bytes(damage)
    assert load_backbone(NAME, "random:0", cache_dir=str(cache)).contract == contract
    assert note.read_text() == contract.weights_sha256


def test_load_backbone__a_wrong_note_is_found_out_with_the_network(cache: Path) -> None:
    load_backbone(NAME, "random:0", cache_dir=str(cache))
    (note,) = cache.rglob("*.sha256")
    note.write_text("0" * 64)
    backbone = load_backbone(NAME, "random:0", cache_dir=str(cache))
    with pytest.raises(ContractMismatch, match=f"Remove {note}"):
        _ = backbone.network


def test_load_backbone__goes_on_where_nothing_can_be_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file")
    backbone = load_backbone(NAME, "random:0", cache_dir=str(tmp_path / "cache"))
    assert backbone.contract == load_backbone(NAME, "random:0").contract
    assert "can't be kept" in caplog.text


def test_known_weights__a_missing_file_is_an_error(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="found none"):
        KnownWeights(BACKBONES[NAME], f"file://{tmp_path}/none.pt", str(cache))


def test_load_backbone__needs_no_pytorch_for_what_is_known(cache: Path) -> None:
    code = (
        "import sys; from pipeline.backbones import load_backbone; "
        f"load_backbone({NAME!r}, 'random:0', cache_dir={str(cache)!r}); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    said = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() for _ in range(2)]
    assert said == ["True", "False"]
