"""Which network a table has, without a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.backbones import load_backbone
from pipeline.engines import embed, load_engine
from pipeline.errors import ConfigError, ContractMismatch, WeightsError
from pipeline.int8.choose import Chosen, choose_backbone
from pipeline.int8.options import Int8Options
from pipeline.quantised import QuantisedNetwork
from pipeline.sources import FolderSource
from pipeline.table import Table, TableInfo, create_table, open_table
from pipeline.targets import backbone_spec, table_backbone
from tests.int8.networks import coarse_pixels, rounded
from tests.s3 import S3Server

NOWHERE = FolderSource("/nowhere")
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def info(network: QuantisedNetwork) -> TableInfo:
    return TableInfo("embeddings", network.contract, "float32")


def choose(table: Table, cache: Path, weights: str = "auto", **values: object) -> Chosen:
    given = backbone_spec("pixels", weights, None, str(cache))
    return choose_backbone(given, table, NOWHERE, Int8Options(cache_dir=str(cache), **values))


def test_choose_backbone__floats_are_left_alone(tmp_path: Path) -> None:
    given = backbone_spec("pixels", "auto", None, str(tmp_path))
    assert choose(Table(str(tmp_path / "table")), tmp_path) == Chosen(given)


@pytest.mark.s3
def test_choose_backbone__a_table_in_a_bucket_keeps_its_network(s3_server: S3Server, tmp_path: Path) -> None:
    network, bucket = coarse_pixels(), s3_server.make_bucket("network")
    table = open_table(f"{bucket}/table", s3_server.options)
    create_table(table, info(network), network.to_bytes())
    chosen = choose(table, tmp_path, precision="int8", table_storage_options=s3_server.options)
    assert chosen.network == network.to_bytes()
    assert chosen.report == {"quantisation": network.report}
    spec = chosen.backbone
    assert spec == table_backbone(table, info(network), None, str(tmp_path), s3_server.options)
    # As an actor loads it, on a node that has nothing yet.
    backbone = load_backbone(
        "pixels",
        spec.weights,
        cache_dir=str(tmp_path / "node"),
        expected=spec.contract,
        storage_options=spec.storage_options,
    )
    floats = embed(load_engine(load_backbone("pixels"), "openvino", "fp32"), PIXELS)
    engine = load_engine(backbone)
    np.testing.assert_allclose(embed(engine, PIXELS), rounded(floats), atol=1e-6)
    assert engine.info.precision == "int8"


def test_choose_backbone__a_quantised_table_refuses_other_floats(tmp_path: Path) -> None:
    network, table = coarse_pixels(), Table(str(tmp_path / "table"))
    made_of = network.contract.quantisation
    assert made_of is not None
    other = replace(network.contract, quantisation=replace(made_of, float_weights_sha256="00" * 32))
    create_table(table, TableInfo("embeddings", other, "float32"), replace(network, contract=other).to_bytes())
    with pytest.raises(ContractMismatch, match=r"was quantised from one that .* differ in: weights_sha256"):
        choose(table, tmp_path)


def test_choose_backbone__says_what_is_wrong_with_a_network(tmp_path: Path) -> None:
    network, table = coarse_pixels(), Table(str(tmp_path / "table"))
    create_table(table, info(network))
    with pytest.raises(WeightsError, match="found none"):
        choose(table, tmp_path)
    other = replace(network, contract=replace(network.contract, backbone="another"))
    (tmp_path / "other.safetensors").write_bytes(other.to_bytes())
    with pytest.raises(ConfigError, match="is one of another with the preprocessing pixels; this run asks for pixels"):
        choose(table, tmp_path, str(tmp_path / "other.safetensors"))
    (tmp_path / "none.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match="Backbone pixels has no weights"):
        choose(table, tmp_path, str(tmp_path / "none.pt"))


def test_load_backbone__refuses_another_network_than_expected(tmp_path: Path) -> None:
    network = coarse_pixels()
    path = tmp_path / "network.safetensors"
    path.write_bytes(network.to_bytes())
    expected = replace(network.contract, weights_sha256="00" * 32)
    with pytest.raises(ContractMismatch, match="weights_sha256"):
        load_engine(load_backbone("pixels", str(path), expected=expected))
    with pytest.raises(ConfigError, match="OpenVINO alone executes"):
        _ = load_backbone("pixels", str(path)).network
