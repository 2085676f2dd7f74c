"""NNCF: without its telemetry, and what is said where it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.backbones import load_backbone
from pipeline.engines import load_engine, require_cpu_engine, suited
from pipeline.engines.quantise import import_nncf
from pipeline.errors import ConfigError
from tests.int8.networks import coarse_pixels


def test_import_nncf__telemetry_is_not_loaded() -> None:
    code = (
        "from pipeline.engines.quantise import import_nncf; import_nncf(); "
        "from nncf.telemetry import wrapper; print(type(wrapper.telemetry).__name__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "MagicMock"  # NNCF's own stub


def test_import_nncf__names_the_extra_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ConfigError, match=r"pip install 'vision-embedding-pipeline\[int8\]'"):
        import_nncf()


def test_suited__a_quantised_network_has_one_way_to_run() -> None:
    quantised, floats = coarse_pixels().contract, load_backbone("pixels").contract
    assert suited(quantised, "auto", "auto", "auto") == ("openvino", "int8", "cpu")
    assert suited(floats, "auto", "auto", "auto") == ("auto", "auto", "auto")
    for precision in ("fp32", "bf16", "fp16"):
        with pytest.raises(ConfigError, match=rf"--precision {precision}, but .* is a quantised network"):
            suited(quantised, "auto", precision, "auto")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="those of a network of floats"):
        suited(floats, "auto", "int8", "auto")
    with pytest.raises(ConfigError, match="got --engine torch"):
        suited(quantised, "torch", "auto", "auto")
    with pytest.raises(ConfigError, match="got --device cuda"):
        require_cpu_engine("auto", "cuda")


def test_load_engine__float_networks_are_not_run_as_int8() -> None:
    with pytest.raises(ConfigError, match="network of floats"):
        load_engine(load_backbone("pixels"), "torch", "int8")
