"""Embed a unit's good images."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import storage
from pipeline.engines import Embeddings, Engine, FileEngine, embed_by_batches
from pipeline.errors import ImageReject, RejectCode
from pipeline.failpoints import reach
from pipeline.failures import Verdict, find
from pipeline.preprocessing import Preprocessing
from pipeline.stages.block import constant, whole
from pipeline.stages.busy import Busy, Stay
from pipeline.stages.costs import costs_of, peak_bytes, with_costs
from pipeline.stages.crops import Crops
from pipeline.table import unit_name

logger = logging.getLogger(__name__)


def embed_unit(
    engine: Engine,
    block: pa.Table,
    preprocessing: Preprocessing,
    embedding_type: pa.DataType,
    on_batch: Callable[[int], None],
    turn: AbstractContextManager[object] | None = None,
    busy: Busy | None = None,
) -> pa.Table:
    """Embed a unit's good images.

    Args:
        engine: What executes the backbone; one that takes files, too, if any were left to be decoded by it.
        block: What `read_unit` returned.
        preprocessing: The backbone's, for images that were left small.
        embedding_type: Arrow type of the embedding column, a fixed-size list of float32 or float16.
        on_batch: Called with a number of images whenever so many more are done, rejects included.
        turn: Held while the engine is at work, where several units are embedded in one process, and it takes one of
            them at a time.
        busy: Counts the engine's time, where several units are embedded in one process.

    Returns:
        The block with ``embedding``, ``hopeless`` and ``engine`` instead of ``pixels``, ``encoded`` and ``vector``, and
        more ``costs``. Rejects have zeros as embedding.
    """
    began, start = time.time(), time.perf_counter()
    stay = (busy or Busy()).stay()
    dim = embedding_type.list_size
    embeddings = np.zeros((len(block), dim), embedding_type.value_type.to_pandas_dtype())
    trouble = block["trouble"][0].as_py()
    name = unit_name(block["plan"][0].as_py(), block["unit"][0].as_py())
    reach("embed", name)
    outcome = {name: block[name].to_pylist() for name in ("stage", "code", "message")}
    decoded, encoded = (np.flatnonzero(np.asarray(a)) for a in (_has_pixels(block), pc.is_valid(block["encoded"])))
    to_embed = np.concatenate([decoded, encoded])
    if trouble is None:
        rejects: dict[int, ImageReject] = {}
        try:
            with turn or nullcontext():
                if len(decoded):
                    vectors = embed_by_batches(engine, Crops(block, decoded, preprocessing))
                    _fill(embeddings, decoded, vectors, on_batch, stay)
                if len(encoded):
                    assert isinstance(engine, FileEngine), "files are left to engines that decode"
                    vectors = _from_files(engine, whole(block["encoded"]), encoded, rejects)
                    _fill(embeddings, encoded, vectors, on_batch, stay)
        except Exception as error:  # an engine may raise anything; the unit stays pending and says why
            storage.log_traceback(logger, "The engine failed.")
            trouble = storage.explained(error, f"The engine {engine.info.engine} failed")
        _note_rejects(block, rejects, outcome)
        _copy_known(block, embeddings)
        for i in np.flatnonzero(~np.isfinite(embeddings).all(axis=1)):
            outcome["stage"][i], outcome["code"][i] = "embed", RejectCode.NON_FINITE.value
            outcome["message"][i] = (
                f"The embedding has infinite or undefined values at precision {engine.info.precision}, stored as "
                f"{embedding_type.value_type}."
            )
            embeddings[i] = 0
    reach("embedded", name)
    on_batch(int(pc.sum(block["present"]).as_py()) - len(to_embed))
    info = ", ".join(f"{key}={value}" for key, value in asdict(engine.info).items()) if len(to_embed) else ""
    block = block.drop_columns([*outcome])
    for name, values in outcome.items():
        block = block.append_column(name, pa.array(values, pa.string()))
    costs = replace(
        costs_of(block),
        embed_s=time.perf_counter() - start,
        engine_s=stay.seconds,
        embed_began=began,
        embed_peak_bytes=peak_bytes(),
        actor=f"{platform.node()}:{os.getpid()}",
    )
    return _finish(with_costs(block, costs), embeddings, embedding_type, trouble, False, info)


def _has_pixels(block: pa.Table) -> pa.ChunkedArray:
    return pc.greater(pc.binary_length(block["pixels"]), 0)


def _note_rejects(block: pa.Table, rejects: dict[int, ImageReject], outcome: dict[str, list[str | None]]) -> None:
    """Note why the engine couldn't decode images, by their rows, and the same of those that occur again."""
    copies = ((i, rejects.get(first)) for i, first in enumerate(block["copy_of"].to_pylist()) if first is not None)
    for i, reject in [*rejects.items(), *copies]:
        if reject is not None:
            outcome["stage"][i], outcome["code"][i] = reject.stage, reject.code.value
            outcome["message"][i] = reject.message


def _copy_known(block: pa.Table, embeddings: NDArray[Any]) -> None:
    """Fill in the embeddings that were known before, and those of images that occur again in the unit."""
    for i in np.flatnonzero(np.asarray(pc.is_valid(block["vector"]))):
        with np.errstate(over="ignore"):
            embeddings[i] = np.frombuffer(block["vector"][int(i)].as_py(), np.float32)
    repeated = np.flatnonzero(np.asarray(pc.is_valid(block["copy_of"])))
    embeddings[repeated] = embeddings[np.asarray(block["copy_of"].take(pa.array(repeated))).astype(np.int64)]


def give_up(block: pa.Table, embedding_type: pa.DataType, error: Exception) -> pa.Table:
    """Return what `embed_unit` would, for a unit that can't be embedded since there is no engine.

    Args:
        block: What `read_unit` returned.
        embedding_type: Arrow type of the embedding column.
        error: Why there is no engine; after a `ConfigError` there is no hope that another try would have one.
    """
    embeddings = np.zeros((len(block), embedding_type.list_size), embedding_type.value_type.to_pandas_dtype())
    hopeless = find(error).verdict is Verdict.FATAL
    trouble = storage.explained(error, "The engine can't be loaded")
    return _finish(block, embeddings, embedding_type, trouble, hopeless, "")


def _finish(
    block: pa.Table,
    embeddings: NDArray[Any],
    embedding_type: pa.DataType,
    trouble: str | None,
    hopeless: bool,
    engine: str,
) -> pa.Table:
    values = pa.array(embeddings.reshape(-1), embedding_type.value_type)
    computed = pc.or_(_has_pixels(block), pc.is_valid(block["encoded"]))
    return (
        block.append_column("computed", computed)
        .drop_columns(["pixels", "encoded", "vector", "trouble"])
        .append_column("trouble", constant(trouble, pa.string(), len(block)))
        .append_column("hopeless", constant(hopeless, pa.bool_(), len(block)))
        .append_column("engine", constant(engine, pa.string(), len(block)))
        .append_column("embedding", pa.FixedSizeListArray.from_arrays(values, type=embedding_type))
    )


def _from_files(
    engine: FileEngine, column: pa.Array, rows: NDArray[np.int64], rejects: dict[int, ImageReject]
) -> Generator[Embeddings]:
    """Decode and embed the files of some rows; ``rejects`` gets, by their rows, those that can't be decoded."""
    size = engine.info.batch_size
    parts = (rows[start : start + size].tolist() for start in range(0, len(rows), size))
    batches = ([column[i].as_py() for i in part] for part in parts)
    done = 0
    for vectors, rejected in engine.embed_files(batches):
        vectors[list(rejected)] = 0
        rejects.update((int(rows[done + place]), reject) for place, reject in rejected.items())
        done += len(vectors)
        yield vectors


def _fill(
    embeddings: NDArray[Any],
    rows: NDArray[np.int64],
    batches: Generator[Embeddings],
    on_batch: Callable[[int], None],
    stay: Stay,
) -> None:
    """Put what the engine gives, batch by batch, into some rows; whatever happens, the engine is left behind."""
    done = 0
    with closing(batches):
        while True:
            with stay:
                vectors = next(batches, None)
            if vectors is None:
                return
            part = rows[done : done + len(vectors)]
            with np.errstate(over="ignore"):  # float16 overflow shows as infinity, and then as a reject
                embeddings[part] = vectors
            done += len(part)
            on_batch(len(part))
