"""The suite that comes with the package for a trial, as users start it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.processes import Surroundings


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_probe__the_demo_suite(surroundings: Surroundings, tmp_path: Path) -> None:
    surroundings.cache = tmp_path / "cache"
    output = tmp_path / "out"
    arguments = ("probe", "--suite", "demo", "--output", output, "--json")
    code, out, err = surroundings.run(*arguments, timeout_s=500)
    assert code == 0, err
    record = json.loads(out)
    values = {(cell["dataset"], cell["backbone"]): cell["value"] for cell in record["cells"]}
    assert values["few-digits", "pixels"] > 0.8
    assert values["few-digits", "resnet50-random"] > 0.8
    assert values["photograph-tiles", "pixels"] > 0.4  # of four classes
    assert values["photograph-tiles", "resnet50-random"] > 0.4
    assert [cell["notes"] for cell in record["cells"]] == [[], [], [], []]
    assert "| dataset | metric | pixels | resnet50-random (RANDOM weights) |" in err
    assert "Weights are RANDOM where the column says so" in err
    assert {path.name for path in output.iterdir() if path.is_file()} >= {"demo.md", "demo.parquet", "demo.json"}
    assert sum(cell["num_embedded_now"] for cell in record["cells"]) == 2 * (500 + 208)
    code, out, err = surroundings.run(*arguments)
    assert (code, "Embedded 0 images in this run" in err) == (0, True), err
    assert {(cell["dataset"], cell["backbone"]): cell["value"] for cell in json.loads(out)["cells"]} == values
    assert surroundings.stray_files() == []
