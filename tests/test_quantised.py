"""The file of a quantised network: what it holds, and that damage is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.contract import FeatureContract, Quantisation
from pipeline.errors import WeightsError
from pipeline.quantised import QuantisedNetwork, files_sha256, is_quantised, parse_network

FILES = {"structure": np.frombuffer(b"<net/>", np.uint8), "constants": np.arange(64, dtype=np.uint8)}
QUANTISATION = Quantisation("nncf int8", "cd" * 32, "ef" * 32, "random:0")
CONTRACT = FeatureContract("pixels", files_sha256(FILES), {"name": "p"}, 4, "", QUANTISATION)
NETWORK = QuantisedNetwork(CONTRACT, FILES, {"images": 3})


def test_parse_network__gives_back_what_was_written() -> None:
    read = parse_network(NETWORK.to_bytes(), "/t/network/x.safetensors")
    assert {name: value.tobytes() for name, value in read.files.items()} == {
        name: value.tobytes() for name, value in FILES.items()
    }
    assert read.report == {"images": 3}
    assert read.contract.digest == CONTRACT.digest
    assert read.contract.weights == "/t/network/x.safetensors"
    assert read.to_bytes() == NETWORK.to_bytes()


def test_files_sha256__goes_by_every_byte_and_by_the_names() -> None:
    swapped = {"structure": FILES["constants"], "constants": FILES["structure"]}
    changed = {**FILES, "constants": FILES["constants"] ^ 1}
    assert len({files_sha256(files) for files in (FILES, swapped, changed)}) == 3


@pytest.mark.parametrize("damage", ["empty", "cut", "a changed constant", "a changed description", "not quantised"])
def test_parse_network__finds_damage(damage: str) -> None:
    data = NETWORK.to_bytes()
    assert data.endswith(FILES["constants"].tobytes()) or data.endswith(FILES["structure"].tobytes())
    damaged = {
        "empty": b"",
        "cut": data[:-10],
        "a changed constant": data[:-1] + b"\xff",
        "a changed description": data.replace(b'embedding_dim\\": 4', b'embedding_dim\\": 5'),
        "not quantised": replace(NETWORK, contract=replace(CONTRACT, quantisation=None)).to_bytes(),
    }[damage]
    assert damaged != data
    with pytest.raises(WeightsError, match=r"quantised network in /t/x"):
        parse_network(damaged, "/t/x")


def test_is_quantised__tells_networks_from_state_dicts(tmp_path: Path) -> None:
    network, weights, text = (tmp_path / name for name in ("n.safetensors", "w.safetensors", "t.safetensors"))
    network.write_bytes(NETWORK.to_bytes())
    save_file({"structure": FILES["structure"]}, weights)
    text.write_text("no such file")
    assert [is_quantised(path) for path in (network, weights, text)] == [True, False, False]
