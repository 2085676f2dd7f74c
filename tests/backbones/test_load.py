"""Backbones by name, and the contracts that they make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.backbones import BACKBONES, load_backbone, resolve_weights
from pipeline.errors import ConfigError, ContractMismatch

NAME = "microsoftvision-resnet50"


def test_load_backbone__random_weights_are_named_and_repeatable() -> None:
    first, again, other = (load_backbone(NAME, f"random:{seed}").contract for seed in (0, 0, 1))
    assert first == again
    assert first.digest != other.digest
    assert first.weights == "random:0"
    assert first.random_weights
    assert first.embedding_dim == 2048


def test_load_backbone__network_is_the_packages() -> None:
    network = load_backbone(NAME, "random:0").network
    assert not network.training
    assert (
        sum(parameter.numel() for parameter in network.parameters()) == 23_508_032
    )  # ResNet-50 without its classifier
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 2048)


def test_load_backbone__the_same_tensors_in_another_file_are_the_same_features(tmp_path: Path) -> None:
    network = load_backbone(NAME, "random:0").network
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "w.tar")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    contracts = [load_backbone(NAME, str(tmp_path / name)).contract for name in ("w.tar", "w.safetensors")]
    assert {contract.digest for contract in contracts} == {load_backbone(NAME, "random:0").contract.digest}
    assert contracts[0].weights == str(tmp_path / "w.tar")
    assert not contracts[0].random_weights


def test_load_backbone__preprocessing_is_part_of_the_contract() -> None:
    usual, notebook = (load_backbone(NAME, "random:0", preset).contract for preset in (None, "fruits360-notebook"))
    assert usual.digest != notebook.digest


def test_load_backbone__refuses_what_is_not_expected() -> None:
    expected = replace(load_backbone("pixels").contract, weights_sha256="00")
    backbone = load_backbone("pixels", expected=expected)
    with pytest.raises(ContractMismatch, match="weights_sha256"):
        _ = backbone.network


def test_published_url__is_the_packages() -> None:
    published_url = BACKBONES[NAME].published_url
    assert published_url is not None
    assert published_url().startswith("https://argusvision.blob.core.windows.net/microsoftvision/")


def test_resolve_weights__says_what_every_node_understands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_weights(NAME, "auto") == "auto"
    assert resolve_weights(NAME, "w.pt") == str(tmp_path / "w.pt")
    assert resolve_weights("pixels", "auto") == "none"
    with pytest.raises(ConfigError, match="has no weights"):
        resolve_weights("pixels", "random:0")
