"""Weights: every accepted form, strict fitting, no code run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.backbones import weights
from pipeline.backbones.load import random_seed
from pipeline.errors import ConfigError, WeightsError


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return weights.build_random(small_network, 1).state_dict()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".tar"])
def test_read_state_dict__reads_pytorch_files(
    state: dict[str, torch.Tensor], tmp_path: Path, suffix: str, prefix: str, wrapped: bool
) -> None:
    content = {prefix + key: value for key, value in state.items()}
    torch.save({"epoch": 3, "state_dict": content} if wrapped else content, tmp_path / f"w{suffix}")
    read = weights.read_state_dict(tmp_path / f"w{suffix}")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_read_state_dict__reads_pytorchs_old_format(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.tar", _use_new_zipfile_serialization=False)
    assert weights.read_state_dict(tmp_path / "w.tar").keys() == state.keys()


def test_read_state_dict__reads_safetensors(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file({f"module.{key}": value for key, value in state.items()}, tmp_path / "w.safetensors")
    assert weights.read_state_dict(tmp_path / "w.safetensors").keys() == state.keys()


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_read_state_dict__runs_no_code(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": state, "extra": Evil(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="could run code"):
        weights.read_state_dict(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_read_state_dict__says_what_is_wrong_with_a_damaged_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"<html>no weights</html>")
    with pytest.raises(WeightsError, match=name):
        weights.read_state_dict(tmp_path / name)


def test_read_state_dict__says_what_it_got_instead(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="a dict with the keys model"):
        weights.read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.bias"), r"1 missing: 0\.bias"),
        (lambda s: s.update({"fc.weight": torch.zeros(1)}), r"1 unknown: fc\.weight"),
        (lambda s: s.update({"0.bias": torch.zeros(5)}), r"1 of another shape: 0\.bias \(5,\) instead of \(4,\)"),
    ],
)
def test_load_strictly__refuses(state: dict[str, torch.Tensor], change: object, message: str) -> None:
    changed = dict(state)
    change(changed)  # type: ignore[operator]
    network = weights.build_random(small_network, 2)
    before = weights.tensors_sha256(network)
    with pytest.raises(WeightsError, match=message):
        weights.load_strictly(network, changed, "w.pt")
    assert weights.tensors_sha256(network) == before


def test_load_strictly__does_without_batch_norms_counter(state: dict[str, torch.Tensor]) -> None:
    network = weights.build_random(small_network, 2)
    weights.load_strictly(network, {k: v for k, v in state.items() if "num_batches" not in k}, "w.pt")
    assert weights.tensors_sha256(network) == weights.tensors_sha256(weights.build_random(small_network, 1))


def test_tensors_sha256__tells_values_and_names_apart() -> None:
    digests = {weights.tensors_sha256(weights.build_random(small_network, seed)) for seed in (1, 1, 2)}
    assert len(digests) == 2


def test_build_random__leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    weights.build_random(small_network, 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("text", ["random:", "random:x", "random:-1", "random:1.5", "random:99999999999"])
def test_random_seed__refuses(text: str) -> None:
    with pytest.raises(ConfigError, match="random:SEED"):
        random_seed(text)
