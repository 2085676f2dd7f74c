"""A quantised network of the small baseline backbone, made by hand: it differs from the float one, and says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.backbones import load_backbone
from pipeline.contract import Quantisation
from pipeline.engines.converted import converted, written_model
from pipeline.engines.openvino import import_openvino
from pipeline.quantised import QuantisedNetwork, files_sha256

#: Steps between 0 and 1 that its features have.
STEPS = 8
REPORT = {
    "images": 1,
    "cosine": {"mean": 1.0, "worst": 1.0},
    "centred_cosine": {"mean": 1.0, "worst": 1.0},
    "accuracy": None,
}


def coarse_pixels() -> QuantisedNetwork:
    """Return the pixels backbone with its features rounded to multiples of 1 / `STEPS`."""
    openvino = import_openvino()
    backbone = load_backbone("pixels")
    model = converted(openvino, backbone, None)
    zero, one = (openvino.opset1.constant(np.float32(value)) for value in (0, 1))
    features = model.get_results()[0].input_value(0)
    rounded = openvino.opset1.fake_quantize(features, zero, one, zero, one, STEPS + 1)
    model = openvino.Model([openvino.opset1.result(rounded)], model.get_parameters(), "coarse")
    files = written_model(openvino, model)
    made_of = Quantisation("by hand", "ca" * 32, backbone.contract.weights_sha256, backbone.contract.weights)
    contract = replace(backbone.contract, weights_sha256=files_sha256(files), weights="", quantisation=made_of)
    return QuantisedNetwork(contract, files, REPORT)


def rounded(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features as `coarse_pixels` gives them."""
    return (np.round(features * STEPS) / STEPS).astype(np.float32)
