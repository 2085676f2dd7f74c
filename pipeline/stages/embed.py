"""Embed a unit's good images."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.engines import Engine, embed
from pipeline.errors import ConfigError, RejectCode
from pipeline.stages.read import constant

logger = logging.getLogger(__name__)


def embed_unit(
    engine: Engine, block: pa.Table, embedding_type: pa.DataType, on_batch: Callable[[int], None]
) -> pa.Table:
    """Embed a unit's good images.

    Args:
        engine: What executes the backbone.
        block: What `read_unit` returned.
        embedding_type: Arrow type of the embedding column, a fixed-size list of float32 or float16.
        on_batch: Called with a number of images whenever so many more are done, rejects included.

    Returns:
        The block with ``embedding``, ``hopeless``, ``embed_s`` and ``engine`` instead of ``pixels``. Rejects have zeros
        as embedding.
    """
    start = time.perf_counter()
    good = np.asarray(pc.is_null(block["code"]))
    dim = embedding_type.list_size
    embeddings = np.zeros((len(block), dim), embedding_type.value_type.to_pandas_dtype())
    trouble = block["trouble"][0].as_py()
    outcome = {name: block[name].to_pylist() for name in ("stage", "code", "message")}
    if trouble is None and good.any():
        try:
            _embed_rows(engine, block, np.flatnonzero(good), embeddings, on_batch)
        except Exception as error:  # an engine may raise anything; the unit stays pending and says why
            logger.exception("The engine failed.")
            trouble = f"The engine {engine.info.engine} failed: {type(error).__name__}: {error}"
        for i in np.flatnonzero(~np.isfinite(embeddings).all(axis=1)):
            outcome["stage"][i], outcome["code"][i] = "embed", RejectCode.NON_FINITE.value
            outcome["message"][i] = (
                f"The embedding has infinite or undefined values at precision {engine.info.precision}, stored as "
                f"{embedding_type.value_type}."
            )
            embeddings[i] = 0
    on_batch(len(block) - int(good.sum()))
    info = ", ".join(f"{key}={value}" for key, value in asdict(engine.info).items())
    block = block.drop_columns([*outcome])
    for name, values in outcome.items():
        block = block.append_column(name, pa.array(values, pa.string()))
    return _finish(block, embeddings, embedding_type, trouble, False, time.perf_counter() - start, info)


def give_up(block: pa.Table, embedding_type: pa.DataType, error: Exception) -> pa.Table:
    """Return what `embed_unit` would, for a unit that can't be embedded since there is no engine.

    Args:
        block: What `read_unit` returned.
        embedding_type: Arrow type of the embedding column.
        error: Why there is no engine; after a `ConfigError` there is no hope that another try would have one.
    """
    embeddings = np.zeros((len(block), embedding_type.list_size), embedding_type.value_type.to_pandas_dtype())
    hopeless = isinstance(error, ConfigError)
    trouble = str(error) if hopeless else f"The engine can't be loaded: {type(error).__name__}: {error}"
    return _finish(block, embeddings, embedding_type, trouble, hopeless, 0.0, "")


def _finish(
    block: pa.Table,
    embeddings: NDArray[Any],
    embedding_type: pa.DataType,
    trouble: str | None,
    hopeless: bool,
    embed_s: float,
    engine: str,
) -> pa.Table:
    values = pa.array(embeddings.reshape(-1), embedding_type.value_type)
    return (
        block.drop_columns(["pixels", "trouble"])
        .append_column("trouble", constant(trouble, pa.string(), len(block)))
        .append_column("hopeless", constant(hopeless, pa.bool_(), len(block)))
        .append_column("embed_s", constant(embed_s, pa.float64(), len(block)))
        .append_column("engine", constant(engine, pa.string(), len(block)))
        .append_column("embedding", pa.FixedSizeListArray.from_arrays(values, type=embedding_type))
    )


def _embed_rows(
    engine: Engine,
    block: pa.Table,
    indices: NDArray[np.int64],
    embeddings: NDArray[Any],
    on_batch: Callable[[int], None],
) -> None:
    column = block["pixels"].combine_chunks()
    side = int((column.type.byte_width // 3) ** 0.5)
    data = np.frombuffer(column.buffers()[1], np.uint8, len(column) * side * side * 3, column.offset * side * side * 3)
    pixels = data.reshape(len(column), side, side, 3)
    size = engine.info.batch_size
    for start in range(0, len(indices), size):
        part = indices[start : start + size]
        contiguous = part[-1] - part[0] + 1 == len(part)
        batch = pixels[part[0] : part[-1] + 1] if contiguous else pixels[part]
        with np.errstate(over="ignore"):  # float16 overflow shows as infinity, and then as a reject
            embeddings[part] = embed(engine, batch)
        on_batch(len(part))
