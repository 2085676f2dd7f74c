"""The export job, and its description's example, run by a Python that knows nothing of this project."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import export
from pipeline.backbones import Backbone, find_preset, load_backbone
from pipeline.contract import Quantisation
from pipeline.engines import embed, load_engine
from pipeline.heads import Head, save_head
from pipeline.images import decode
from tests import samples
from tests.export.heads import CLASSES, make_head
from tests.integration.processes import ROOT
from tests.jobs.test_jobs import content, run

SECTION = (ROOT / "docs" / "heads.md").read_text().split("\n## Export\n")[1].split("\n## ")[0]


def write_head(folder: Path, kind: Any = "logistic") -> tuple[Backbone, Head]:
    backbone = load_backbone("pixels")
    head = make_head(kind, backbone.contract)
    save_head(head, str(folder))
    return backbone, head


def expected(backbone: Backbone, head: Head, paths: list[Path]) -> np.ndarray:
    pixels = np.stack([backbone.preprocessing.pixels(decode(path.read_bytes())) for path in paths])
    return head.probabilities(embed(load_engine(backbone, "torch", "fp32", device="cpu"), pixels))


def test_export__writes_a_program_and_all_that_is_to_be_known_of_it(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone, head = write_head(tmp_path / "head")
    output = tmp_path / "out" / "fruit.onnx"
    options = ("--head", tmp_path / "head", "--output", output, "--verify", image_folder, "--verify-images", 9)
    code, record = run(capsys, export, *options)
    assert code == 0, record["stderr"]
    assert sorted(path.name for path in output.parent.iterdir()) == ["fruit.onnx", "fruit.onnx.json"]
    description = json.loads(Path(f"{output}.json").read_text())
    assert (description["format"], description["classes"]) == ("onnx", list(CLASSES))
    data = output.read_bytes()
    assert description["file"] == {
        "name": "fruit.onnx",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    assert description["input"] == {
        "name": "pixels",
        "dtype": "uint8",
        "shape": ["B", 32, 32, 3],
        "layout": "NHWC",
        "colour_order": "BGR",
    }
    assert [(each["name"], each["shape"]) for each in description["outputs"]] == [
        ("probabilities", ["B", 7]),
        ("embeddings", ["B", 192]),
    ]
    before, inside = description["preprocessing"]["before"], description["preprocessing"]["inside"]
    preset = find_preset("pixels", None).to_json()
    for name, value in preset.items():
        there = {**before, **inside, "name": preset["name"], "channel_order": inside["order_of_channels"]}
        assert there[name] == value, name
    assert description["head"] == {"kind": "logistic", "sha256": head.sha256, "temperature": 1.7}
    assert description["contract"] == backbone.contract.to_json()
    verified = description["verified"]
    assert verified == record["verified"]
    assert (verified["images"], verified["top1_agreement"]) == (9, 1.0)
    assert verified["source"] == f"folder {image_folder}"
    assert 0 <= verified["max_probability_difference"] < 1e-5
    assert "probabilities differ from the pipeline's by" in record["stderr"]


@pytest.mark.parametrize(("program_format", "name"), [("onnx", "classifier.onnx"), ("torch-export", "classifier.pt2")])
def test_export__the_example_runs_without_this_project(
    program_format: str, name: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone, head = write_head(tmp_path / "head", "knn")
    arguments = ("--head", tmp_path / "head", "--output", tmp_path / "program", "--format", program_format)
    assert run(capsys, export, *arguments)[0] == 0
    paths = sorted(image_folder.rglob("*.jpg"))[:2]
    for path, new in zip(paths, ("one.jpg", "two.jpg"), strict=True):
        path.rename(tmp_path / "program" / new)
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL) if name in block)
    code += "\nimport sys\nassert not {'pipeline', 'ray', 'microsoftvision'} & set(sys.modules)\n"
    code += "print(json.dumps([float(value) for row in probabilities for value in row]))\n"
    result = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path / "program", capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr
    *said, values = result.stdout.splitlines()
    wanted = expected(backbone, head, [tmp_path / "program" / new for new in ("one.jpg", "two.jpg")])
    np.testing.assert_allclose(np.reshape(json.loads(values), wanted.shape), wanted, atol=1e-5)
    assert said == [f"{CLASSES[row.argmax()]} {row.max():.3f}" for row in wanted]


def test_export__a_program_too_far_from_the_pipeline_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_head(tmp_path / "head")
    arguments = ("--head", tmp_path / "head", "--output", tmp_path / "out", "--format", "torch-export")
    code, record = run(capsys, export, *arguments, "--tolerance", 0)
    assert (code, "Nothing was written" in record["error"]) == (2, True)
    assert not (tmp_path / "out").exists()
    assert run(capsys, export, *arguments)[0] == 0
    before = content(tmp_path / "out")
    assert run(capsys, export, *arguments, "--tolerance", 0)[0] == 2
    assert content(tmp_path / "out") == before


def test_export__names_random_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = load_backbone("microsoftvision-resnet50", "random:3")
    save_head(make_head("logistic", backbone.contract), str(tmp_path / "head"))
    options = ("--head", tmp_path / "head", "--output", tmp_path / "p.pt2", "--verify-images", 3)
    code, record = run(capsys, export, *options)
    assert code == 0, record["stderr"]
    assert "RANDOM WEIGHTS (random:3)" in record["stderr"]
    assert "Weights are RANDOM (random:3)" in record["stderr"]
    description = json.loads((tmp_path / "p.pt2.json").read_text())
    assert (description["random_weights"], description["contract"]["weights"]) == (True, "random:3")
    code, record = run(capsys, export, *options, "--weights", "random:4")
    assert (code, "weights_sha256" in record["error"]) == (2, True)


def test_export__refuses_what_it_can_not_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, head = write_head(tmp_path / "head")
    int8 = replace(head, contract=replace(head.contract, quantisation=Quantisation("nncf int8", "a", "b", "auto")))
    save_head(int8, str(tmp_path / "int8"))
    samples.write(tmp_path / "images" / "notes.jpg", b"no image")
    out = ("--output", tmp_path / "out")
    for options, message in (
        (("--head", tmp_path / "int8", *out), "so it can't be exported"),
        (("--head", tmp_path / "nothing", *out), "no head.json"),
        (("--head", tmp_path / "head", "--output", tmp_path / "a.pt2", "--format", "onnx"), "suffix .onnx"),
        (("--head", tmp_path / "head", "--output", tmp_path / "head" / "head.json"), "is a file"),
        (("--head", tmp_path / "head", *out, "--verify", tmp_path / "images"), "none that can be decoded"),
    ):
        code, record = run(capsys, export, *options)
        assert (code, message in record["error"]) == (2, True), record["error"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head", "images", "int8"]
