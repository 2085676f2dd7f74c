"""The jobs with quantised networks: which one a table has, where it lies, and that it is the one that runs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import predict, retry, train, verify
from pipeline.backbones import load_backbone
from pipeline.table import Table, TableInfo, create_table, embeddings
from tests import samples
from tests.int8.networks import coarse_pixels, rounded
from tests.jobs.test_jobs import content, run, run_embed

pytestmark = pytest.mark.usefixtures("ray_cluster")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def coarse(tmp_path: Path) -> Path:
    """A quantised network whose features can be told from those of the float one."""
    return samples.write(tmp_path / "coarse.safetensors", coarse_pixels().to_bytes())


def vectors(table: Path) -> np.ndarray:
    return embeddings(pq.read_table(table / "data").sort_by("uri")["embedding"])


def test_embed__quantises_the_network_of_a_new_table_once(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, table = samples.write_folder(tmp_path / "images", per_class=5), tmp_path / "table"
    code, record = run_embed(capsys, images, table, "--precision", "int8", "--calibration-images", 10)
    assert code == 0, record["stderr"]
    assert "int8 against float32 on 10 images" in record["stderr"]
    assert "precision=int8" in record["engines"][0]
    assert record["quantisation"]["accuracy"]["classes"] == 2
    assert record["contract"]["quantisation"]["method"] == "nncf int8"
    (network,) = table.glob("network/*.safetensors")
    assert record["contract"]["weights"] == str(network)
    before = network.read_bytes()
    samples.write(images / "train" / "flower" / "new.jpg", samples.jpeg(77))
    monkeypatch.setitem(sys.modules, "nncf", None)  # nothing is quantised any more
    for precision in ("auto", "int8"):
        code, record = run_embed(capsys, images, table, "--precision", precision)
        assert (code, record["ledger"]["embedded"]) == (0, 21), record["stderr"]
        assert record["quantisation"]["images"] == 10
    assert [path.read_bytes() for path in table.glob("network/*.safetensors")] == [before]
    code, record = run_embed(capsys, images, table, "--precision", "fp32")
    assert code == 2
    assert "They differ in: weights_sha256, quantisation" in record["error"]


def test_embed__int8_is_refused_before_anything_is_written(image_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    floats, table = tmp_path / "floats", tmp_path / "table"
    create_table(Table(str(floats)), TableInfo("embeddings", load_backbone("pixels").contract, "float32"))
    before = content(floats)
    for place, arguments, message in (
        (floats, (), "in floats; this run asks for --precision int8"),
        (table, ("--engine", "torch"), "got --engine torch"),
        (table, (), "at least 16; 12 different ones"),
        (table, ("--calibration-images", 8, "--limit", 0), "--limit"),
    ):
        code, record = run_embed(capsys, image_folder, place, "--precision", "int8", *arguments)
        assert code == 2
        assert message in record["error"]
    code, record = run_embed(capsys, image_folder, table, "--calibration-images", 8)
    assert code == 2
    assert "--calibration-images can be used with --precision int8 only" in record["error"]
    assert content(floats) == before
    assert not table.exists()


def test_jobs__the_network_of_a_table_is_what_runs(
    image_folder: Path, coarse: Path, tmp_path: Path, capsys: Capture
) -> None:
    samples.write(image_folder / "test" / "palace" / "bad.jpg", b"no image")
    made, table, head = (tmp_path / name for name in ("made", "table", "head"))
    assert run_embed(capsys, image_folder, made, "--weights", coarse)[0] == 0
    first = vectors(made)
    np.testing.assert_allclose(first, rounded(first), atol=1e-6)
    assert run(capsys, train, "--table", made, "--head", head)[0] == 0
    made.rename(table)
    coarse.unlink()
    (network,) = table.glob("network/*.safetensors")
    half_written = samples.write(table / "network" / f".{network.name}.0123456789ab.tmp", b"half")
    code, record = run(capsys, verify, "--table", table, "--sample", 5, "--clean", "--grace-s", 0)
    assert code == 0, record["stderr"]
    assert record["sample"]["worst_cosine"] > 0.99999
    assert record["removed"] == [str(half_written)]
    assert network.exists()

    samples.write(image_folder / "test" / "palace" / "bad.jpg", samples.jpeg(5))
    code, record = run(capsys, retry, "--table", table)
    assert (code, record["new"]["embedded"]) == (0, 1), record["stderr"]
    np.testing.assert_allclose(vectors(table), rounded(vectors(table)), atol=1e-6)

    predictions = ("--source", image_folder, "--head", head, "--output", tmp_path / "predictions", "--reuse", table)
    code, record = run(capsys, predict, *predictions)
    assert code == 2
    assert str(made / "network") in record["error"], "the head says where the network was"
    code, record = run(capsys, predict, *predictions, "--weights", network)
    assert (code, record["new"]["embedded"]) == (0, 13), record["stderr"]
    assert record["contract"]["quantisation"]["method"] == "by hand"


def test_verify__a_damaged_or_missing_network_is_a_breach(tmp_path: Path, capsys: Capture) -> None:
    network, table = coarse_pixels(), Table(str(tmp_path / "table"))
    create_table(table, TableInfo("embeddings", network.contract, "float32"), network.to_bytes())
    file = Path(table.network_uri(network.contract))
    assert run(capsys, verify, "--table", table.uri)[0] == 0
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    code, record = run(capsys, verify, "--table", table.uri)
    assert (code, record["breaches_by_check"]) == (4, {"network": 1})
    file.unlink()
    code, record = run(capsys, verify, "--table", table.uri)
    assert (code, record["breaches_by_check"]) == (4, {"network": 1})
    assert "found none" in record["breaches"][0]["message"]
