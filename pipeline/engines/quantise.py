"""Post-training quantisation of a backbone's network to int8, by NNCF, the toolkit of OpenVINO."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import Any

from pipeline.backbones import Backbone
from pipeline.engines.converted import converted, written_model
from pipeline.engines.openvino import import_openvino, openvino_core
from pipeline.engines.signal_stack import signal_stack_kept
from pipeline.errors import ConfigError
from pipeline.images import Pixels
from pipeline.quantised import NetworkFiles

#: What the ranges of the numbers follow from, beside the images; `quantise` says why.
SETTINGS = {"preset": "performance", "activation_range": "min max", "bias_correction": "fast", "form": 1}


def import_nncf() -> Any:
    """Import NNCF without its telemetry, which goes by the package that `import_openvino` hides.

    Raises:
        ConfigError: It isn't installed.
    """
    import_openvino()
    try:
        import nncf
    except ImportError as error:
        raise ConfigError(
            f"--precision int8 needs NNCF where jobs.embed is started, to quantise the network ({error}). Install it "
            "with: pip install 'vision-embedding-pipeline[int8]'. The nodes that embed need it not."
        ) from None
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own set_log_level sets handlers that may be others'
    return nncf


def toolkit_versions() -> dict[str, str]:
    """Return the versions of what quantises.

    Raises:
        ConfigError: It isn't installed.
    """
    import_nncf()
    return {package: version(package) for package in ("nncf", "openvino")}


def quantise(backbone: Backbone, pixels: Pixels, cache_dir: str) -> NetworkFiles:
    """Return a backbone's network quantised: weights and activations of all convolutions in 8 bits.

    Weights have a scale for each channel, activations one for each layer. Its bounds are the least and the largest
    value that any image gives; NNCF's default, the mean of each image's, cuts off what images of high contrast give
    (docs/performance.md has the figures).

    Args:
        backbone: Of floats.
        pixels: The images that the ranges come from, uint8 of shape (N, H, W, 3), BGR.
        cache_dir: Folder where the converted network is kept.

    Raises:
        ConfigError: NNCF isn't installed.
        WeightsError: The network was needed, and its weights can't be had.
    """
    nncf, openvino = import_nncf(), import_openvino()
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    side = backbone.preprocessing.crop
    model = converted(openvino, backbone, cache_dir)
    model.reshape([1, side, side, 3])
    openvino_core().get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin that stays, before those of NNCF
    with signal_stack_kept(), redirect_stdout(io.StringIO()):  # it draws progress bars
        quantised = nncf.quantize(
            model,
            nncf.Dataset([image[None] for image in pixels]),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(pixels),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
            ),
        )
    quantised.reshape([-1, side, side, 3])
    return written_model(openvino, quantised)
