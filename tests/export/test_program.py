"""A program gives what the pipeline gives, in both formats, for every kind of head and any batch size."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from pipeline.backbones import Backbone, load_backbone
from pipeline.engines import embed, load_engine
from pipeline.engines.openvino import openvino_core
from pipeline.errors import ConfigError
from pipeline.export import ProgramFormat
from pipeline.export.formats import OUTPUTS, open_program, write_program
from pipeline.export.options import SUFFIXES
from pipeline.export.parity import built_in_pixels, compare, require_parity
from pipeline.export.program import Program
from pipeline.heads import Head
from pipeline.heads.kinds import HeadKind
from tests.export.heads import CLASSES, KINDS, make_head, random_pixels

FORMATS: tuple[ProgramFormat, ...] = get_args(ProgramFormat)


def exported(backbone: Backbone, head: Head, folder: Path, program_format: ProgramFormat) -> Path:
    path = folder / f"program{SUFFIXES[program_format]}"
    write_program(Program(backbone, head), backbone.preprocessing.crop, path, program_format)
    return path


@pytest.mark.parametrize("program_format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_program__gives_the_pipelines_probabilities_and_embeddings(
    kind: HeadKind, program_format: ProgramFormat, tmp_path: Path
) -> None:
    backbone = load_backbone("pixels")
    head = make_head(kind, backbone.contract)
    pixels = random_pixels(23, 32)
    embeddings = embed(load_engine(backbone, "torch", "fp32", device="cpu"), pixels)
    probabilities = head.probabilities(embeddings)
    assert len(set(probabilities.argmax(axis=1))) > 2
    run, executed_by = open_program(exported(backbone, head, tmp_path, program_format), program_format)
    assert executed_by.startswith(("onnxruntime", "torch"))
    for size in (1, 2, 7, 23):
        found = run(pixels[:size])
        assert [values.dtype for values in found] == [np.float32, np.float32]
        assert [values.shape for values in found] == [(size, len(CLASSES)), (size, 192)]
        np.testing.assert_allclose(found[0], probabilities[:size], atol=2e-6)
        np.testing.assert_allclose(found[1], embeddings[:size], atol=2e-6)
    assert [path.name for path in tmp_path.iterdir()] == [f"program{SUFFIXES[program_format]}"]


@pytest.mark.parametrize("kind", ["mlp", "knn"])
def test_program__openvino_reads_the_onnx_file(kind: HeadKind, tmp_path: Path) -> None:
    backbone = load_backbone("pixels")
    head = make_head(kind, backbone.contract)
    path = exported(backbone, head, tmp_path, "onnx")
    compiled = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    pixels = random_pixels(5, 32)
    expected = head.probabilities(embed(load_engine(backbone, "torch", "fp32", device="cpu"), pixels))
    np.testing.assert_allclose(compiled([pixels])[OUTPUTS[0]], expected, atol=1e-5)


def test_program__of_fewer_training_vectors_than_neighbours_takes_all(tmp_path: Path) -> None:
    backbone = load_backbone("pixels")
    head = make_head("knn", backbone.contract)
    model = type(head.model)(head.model.bank[:4], head.model.places[:4], 20, 0.07, len(CLASSES))  # type: ignore[attr-defined,call-arg]
    few = Head("knn", CLASSES, backbone.contract, model)
    pixels = random_pixels(3, 32)
    run, _ = open_program(exported(backbone, few, tmp_path, "torch-export"), "torch-export")
    embeddings = run(pixels)[1]
    np.testing.assert_allclose(run(pixels)[0], few.probabilities(embeddings), atol=2e-6)


@pytest.mark.parametrize("program_format", FORMATS)
def test_program__of_the_resnet_agrees_with_the_pipelines_own_engine(
    calibrated_weights: Path, program_format: ProgramFormat, tmp_path: Path
) -> None:
    backbone = load_backbone("microsoftvision-resnet50", str(calibrated_weights))
    head = make_head("logistic", backbone.contract)
    run, _ = open_program(exported(backbone, head, tmp_path, program_format), program_format)
    pixels = built_in_pixels(backbone.preprocessing, 12)
    report = compare(run, backbone, head, pixels, str(tmp_path / "cache"))
    assert report["images"] == 12
    assert report["max_probability_difference"] < 1e-3
    assert report["min_cosine"] > 0.99999
    require_parity(report, 1e-3)


def test_compare__finds_another_head_and_swapped_colours(tmp_path: Path) -> None:
    backbone = load_backbone("pixels")
    head = make_head("logistic", backbone.contract)
    pixels = built_in_pixels(backbone.preprocessing, 8)
    run, _ = open_program(exported(backbone, head, tmp_path, "torch-export"), "torch-export")
    require_parity(compare(run, backbone, head, pixels, str(tmp_path / "cache")), 1e-4)
    other = make_head("logistic", backbone.contract, seed=1)
    with pytest.raises(ConfigError, match="too far from the pipeline.*Nothing was written"):
        require_parity(compare(run, backbone, other, pixels, str(tmp_path / "cache")), 1e-3)
    swapped = compare(lambda p: run(p[..., ::-1].copy()), backbone, head, pixels, str(tmp_path / "cache"))
    assert swapped["min_cosine"] < 0.9999
    with pytest.raises(ConfigError, match="too far"):
        require_parity(swapped, 1.0)  # whatever probabilities are allowed, the embeddings are others
    undefined = compare(lambda p: (run(p)[0] * np.nan, run(p)[1]), backbone, head, pixels, str(tmp_path / "cache"))
    assert undefined["max_probability_difference"] is None
    with pytest.raises(ConfigError, match="something undefined"):
        require_parity(undefined, 1.0)


def test_built_in_pixels__are_the_same_every_time_and_all_different() -> None:
    preprocessing = load_backbone("pixels").preprocessing
    one, other = built_in_pixels(preprocessing, 16), built_in_pixels(preprocessing, 16)
    assert one.shape == (16, 32, 32, 3)
    np.testing.assert_array_equal(one, other)
    assert len({image.tobytes() for image in one}) == 16


def test_write_program__refuses_onnx_beyond_two_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone("pixels")
    monkeypatch.setattr("pipeline.export.formats._MOST_ONNX_BYTES", 1000)
    with pytest.raises(ConfigError, match="at most 2 GiB.*--format torch-export"):
        exported(backbone, make_head("knn", backbone.contract), tmp_path, "onnx")
    assert list(tmp_path.iterdir()) == []
