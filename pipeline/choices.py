"""The values of options that take one of a few; apart from the options, since no worker process needs pydantic."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
Device = Literal["auto", "cpu", "cuda"]
Decoder = Literal["cpu", "gpu"]
EmbeddingType = Literal["float32", "float16"]
