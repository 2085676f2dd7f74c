"""OpenVINO on a CPU: bf16 where the processor multiplies it in hardware, float32 elsewhere.

Several batches are at work at the same time, each on a stream of few threads (OpenVINO's hint for throughput). All
threads on one batch (its hint for latency) are as fast on an idle machine. But the cores are shared with those who
decode; and whenever one thread of a batch has to wait for its core, all others wait for that thread. For the same
reason no thread is tied to a core.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbones import Backbone
from pipeline.engines.base import Embeddings, EngineInfo
from pipeline.engines.converted import converted
from pipeline.engines.lanes import SharedLanes
from pipeline.errors import ConfigError
from pipeline.images import Pixels

#: OpenVINO's names of the precisions (openvino.Type) and its capability names.
#: Of a quantised network, int8 is what its own structure says; the few layers that are left are as fast in float32.
_PRECISIONS = {
    "fp32": ("f32", "FP32"),
    "bf16": ("bf16", "BF16"),
    "fp16": ("f16", "FP16"),
    "int8": ("f32", "INT8"),
}
#: Images a call: larger ones are no faster, need more memory in each stream, and leave streams idle longer at the end
#: of a unit.
DEFAULT_BATCH_SIZE = 8


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


@functools.cache
def openvino_core() -> Any:
    """Return this process's one Core: see `pipeline.engines.signal_stack` for what several of them do to signals."""
    return import_openvino().Core()


class OpenVINOEngine:
    """A backbone compiled by OpenVINO for this CPU, at one batch size; several threads may use it at once."""

    takes_several_callers = True

    def __init__(
        self,
        backbone: Backbone,
        precision: str,
        batch_size: int | None,
        num_threads: int,
        cache_dir: str | None = None,
    ) -> None:
        openvino, core = import_openvino(), openvino_core()
        precision = choose_precision(core, precision)
        batch_size = batch_size or DEFAULT_BATCH_SIZE
        side = backbone.preprocessing.crop
        model = converted(openvino, backbone, cache_dir)
        model.reshape([batch_size, side, side, 3])
        self._compiled = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "THROUGHPUT",
                "INFERENCE_PRECISION_HINT": _PRECISIONS[precision][0],
                "INFERENCE_NUM_THREADS": num_threads,
                "ENABLE_CPU_PINNING": False,
            },
        )
        num_requests = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1
        self._lanes = SharedLanes([_Request(self._compiled.create_infer_request()) for _ in range(num_requests)])
        used = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != _PRECISIONS[precision][0]:
            raise ConfigError(f"Asked OpenVINO for {precision}, but it compiled the network for {used}.")
        self._info = EngineInfo("openvino", precision, core.get_property("CPU", "FULL_DEVICE_NAME"), batch_size)

    @property
    def info(self) -> EngineInfo:
        """Say what executes."""
        return self._info

    def embed_batches(self, batches: Iterable[Pixels]) -> Iterator[Embeddings]:
        """Embed batches of exactly ``info.batch_size`` images; see `pipeline.engines.base.SharedEngine`."""
        return self._lanes.embed_batches(batches)


class _Request:
    """An infer request as a lane: one more than there are streams, so that each finds its next batch waiting."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def submit(self, pixels: Pixels) -> None:
        self._request.start_async([np.ascontiguousarray(pixels)])

    def collect(self) -> Embeddings:
        self._request.wait()
        return np.array(
            self._request.get_output_tensor(0).data, dtype=np.float32
        )  # a copy: the next batch overwrites it


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
