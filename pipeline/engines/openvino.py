"""OpenVINO on a CPU: bf16 where the processor multiplies it in hardware, float32 elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbones import Backbone
from pipeline.engines.base import Embeddings, EngineInfo
from pipeline.engines.converted import converted
from pipeline.errors import ConfigError
from pipeline.images import Pixels

#: OpenVINO's names of the precisions (openvino.Type) and its capability names.
_PRECISIONS = {"fp32": ("f32", "FP32"), "bf16": ("bf16", "BF16"), "fp16": ("f16", "FP16")}
#: Images a call: with a latency hint all threads work on one batch, so larger ones gain nothing and pad more.
DEFAULT_BATCH_SIZE = 16


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, unless the user has turned that on.

    Importing ``openvino`` sends a usage event where the package ``openvino_telemetry`` is importable and nobody said
    no. It does without that package by design, so the package is hidden from it; a user's own consent file
    (``opt_in_out --opt_in`` writes it) brings it back.
    """
    consent = Path(os.path.expanduser("~/intel/openvino_telemetry"))
    opted_in = consent.is_file() and consent.read_text().strip() == "1"
    if not opted_in:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class OpenVINOEngine:
    """A backbone compiled by OpenVINO for this CPU, at one batch size."""

    def __init__(
        self,
        backbone: Backbone,
        precision: str,
        batch_size: int | None,
        num_threads: int,
        cache_dir: str | None = None,
    ) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        precision = choose_precision(core, precision)
        batch_size = batch_size or DEFAULT_BATCH_SIZE
        side = backbone.preprocessing.crop
        model = converted(openvino, backbone, cache_dir)
        model.reshape([batch_size, side, side, 3])
        self._compiled = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": _PRECISIONS[precision][0],
                "INFERENCE_NUM_THREADS": num_threads,
            },
        )
        used = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != _PRECISIONS[precision][0]:
            raise ConfigError(f"Asked OpenVINO for {precision}, but it compiled the network for {used}.")
        self._info = EngineInfo("openvino", precision, core.get_property("CPU", "FULL_DEVICE_NAME"), batch_size)

    @property
    def info(self) -> EngineInfo:
        """Say what executes."""
        return self._info

    def embed_batch(self, pixels: Pixels) -> Embeddings:
        """Embed exactly ``info.batch_size`` images; see `pipeline.engines.base.Engine`."""
        result = self._compiled([np.ascontiguousarray(pixels)])[0]
        return np.array(result, dtype=np.float32)  # a copy: OpenVINO reuses its output buffer


def choose_precision(core: Any, precision: str) -> str:
    """Turn ``auto`` into a precision that the processor has.

    Raises:
        ConfigError: It lacks the one that was asked for.
    """
    capabilities = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    if precision == "auto":
        return "bf16" if "BF16" in capabilities else "fp32"
    if _PRECISIONS[precision][1] not in capabilities:
        known = [name for name, (_, capability) in _PRECISIONS.items() if capability in capabilities]
        raise ConfigError(
            f"Asked for --precision {precision} with --engine openvino, but this processor "
            f"({core.get_property('CPU', 'FULL_DEVICE_NAME')}) has {', '.join(known)}. "
            "Use --precision auto, or --engine torch, which emulates bf16 slowly."
        )
    return precision
