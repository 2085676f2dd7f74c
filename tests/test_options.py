"""Options: validated, immutable, and refused with the option's name."""

from __future__ import annotations

import pytest

from pipeline.embed import EmbedOptions
from pipeline.errors import ConfigError
from pipeline.predict import PredictOptions


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "x"}, "Option --table is required"),
        (
            {"source": "x", "table": "y", "unit_size": 0},
            "--unit-size: input should be greater than or equal to 1; got 0",
        ),
        ({"source": "x", "table": "y", "unit_siz": 1}, "--unit-siz is not known"),
        ({"source": "x", "table": "y", "engine": "onnx"}, "--engine: input should be 'auto', 'openvino' or 'torch'"),
        ({"source": "x", "table": "y", "max_reject_fraction": 1.5}, "--max-reject-fraction"),
        ({"source": "x", "table": "y", "storage_options": "a secret"}, "--storage-options: .*dictionary; got a str"),
    ],
)
def test_embed_options__refuse(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EmbedOptions(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one of --table and --source"),
        ({"table": "t", "source": "s"}, "exactly one of --table and --source"),
        ({"table": "t", "engine": "torch"}, "--engine can be used with --source only"),
    ],
)
def test_predict_options__refuse(values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PredictOptions(head="h", output="o", **values)


def test_options__are_immutable() -> None:
    options = EmbedOptions(source="x", table="y")
    with pytest.raises(ValueError, match="frozen"):
        options.unit_size = 3  # type: ignore[misc]
