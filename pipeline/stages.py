"""What happens to one unit: read and decode, embed, commit. Plain functions on Arrow tables; embed.py puts them on Ray.

A unit travels as one table with one row an image, in the order of its plan, rejects included. Three columns tell what
became of a row: ``code`` (null while the image is good) with ``stage`` and ``message``; and ``trouble`` on every row
tells why the unit can't be committed now, null while it can.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.backbones import Preprocessing
from pipeline.engines import Engine, embed
from pipeline.errors import ImageReject, RejectCode, TransientError
from pipeline.images import Limits, decode
from pipeline.sources import Source
from pipeline.table import Table, Unit, commit_unit, unit_refs
from pipeline.table.schema import IMAGE_FIELDS, REJECT_SCHEMA

logger = logging.getLogger(__name__)

#: Waits in seconds between the attempts to read an image that may be readable later.
READ_BACKOFF_S = (0.1, 0.5, 2.0)


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What became of one unit; what the driver sees of it.

    Args:
        plan: The unit's plan.
        unit: Its number in the plan.
        num_images: How many images it promises.
        embedded: Rows committed for it.
        rejected: Rejects committed for it.
        created: Whether this run committed it.
        trouble: Why it stays pending; None where it is committed.
        read_s: Seconds spent reading and decoding.
        embed_s: Seconds spent in the engine.
        engine: What executed the network, see `pipeline.engines.EngineInfo`; empty where nothing was embedded.
    """

    plan: str
    unit: int
    num_images: int
    embedded: int = 0
    rejected: int = 0
    created: bool = False
    trouble: str | None = None
    read_s: float = 0.0
    embed_s: float = 0.0
    engine: str = ""


def read_unit(
    table: Table,
    unit: Unit,
    source: Source,
    preprocessing: Preprocessing,
    limits: Limits,
    backoff_s: tuple[float, ...] = READ_BACKOFF_S,
) -> pa.Table:
    """Read, decode, resize and crop a unit's images.

    Returns:
        A table with the columns of the unit's refs, ``sha256``, ``width``, ``height``, the outcome columns, ``read_s``
        and ``pixels``: fixed-size binary, uint8 of shape (crop, crop, 3), BGR, zeros for a reject.
    """
    start = time.perf_counter()
    refs = unit_refs(table, unit)
    side = preprocessing.crop
    pixels = np.zeros((len(refs), side, side, 3), np.uint8)
    rows: list[dict[str, Any]] = []
    trouble = None
    for i, uri in enumerate(refs["uri"].to_pylist()):
        row: dict[str, Any] = dict.fromkeys(("sha256", "width", "height", "stage", "code", "message"))
        rows.append(row)
        try:
            data = _read_with_retries(source, uri, limits.max_bytes, backoff_s)
            row["sha256"] = hashlib.sha256(data).hexdigest() if len(data) <= limits.max_bytes else None
            image = decode(data, limits)
            row["height"], row["width"] = image.shape[:2]
            pixels[i] = preprocessing.pixels(image)
        except ImageReject as reject:
            row.update(stage=reject.stage, code=reject.code.value, message=reject.message)
        except (OSError, TransientError, MemoryError) as error:
            trouble = f"{uri} can't be read now: {type(error).__name__}: {error}"
            break
    rows.extend(dict.fromkeys(rows[0]) for _ in range(len(refs) - len(rows)))
    strings, integers = pa.string(), pa.int32()
    for name, kind in (
        ("sha256", strings),
        ("width", integers),
        ("height", integers),
        ("stage", strings),
        ("code", strings),
        ("message", strings),
    ):
        refs = refs.append_column(name, pa.array([row[name] for row in rows], kind))
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(side * side * 3), len(pixels), [None, pa.py_buffer(pixels)])
    return (
        refs.append_column("plan", constant(unit.plan, strings, len(refs)))
        .append_column("trouble", constant(trouble, strings, len(refs)))
        .append_column("read_s", constant(time.perf_counter() - start, pa.float64(), len(refs)))
        .append_column("pixels", column)
    )


def constant(value: Any, kind: pa.DataType, length: int) -> pa.Array:
    """Return an array that repeats one value."""
    return pa.repeat(pa.scalar(value, kind), length)


def _read_with_retries(source: Source, uri: str, max_bytes: int, backoff_s: tuple[float, ...]) -> bytes:
    for wait_s in backoff_s:
        try:
            return source.read(uri, max_bytes)
        except OSError:
            time.sleep(wait_s)
    return source.read(uri, max_bytes)


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
        The block with ``embedding``, ``embed_s`` and ``engine`` instead of ``pixels``. Rejects have zeros as embedding.
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
    info = asdict(engine.info)
    text = ", ".join(f"{key}={value}" for key, value in info.items())
    block = block.drop_columns(["pixels", "trouble", *outcome])
    for name, values in outcome.items():
        block = block.append_column(name, pa.array(values, pa.string()))
    values = pa.array(embeddings.reshape(-1), embedding_type.value_type)
    column = pa.FixedSizeListArray.from_arrays(values, type=embedding_type)
    return (
        block.append_column("trouble", constant(trouble, pa.string(), len(block)))
        .append_column("embed_s", constant(time.perf_counter() - start, pa.float64(), len(block)))
        .append_column("engine", constant(text, pa.string(), len(block)))
        .append_column("embedding", column)
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


def commit_block(
    block: pa.Table, table: Table, finish: Callable[[pa.Table], pa.Table], run: dict[str, Any]
) -> UnitReport:
    """Commit a unit.

    Args:
        block: What `embed_unit` returned.
        table: Where the unit belongs.
        finish: Makes the data file's columns from the good rows, which have `IMAGE_FIELDS` and ``embedding``.
        run: What identifies the run, stored in the files' metadata.
    """
    first = block.slice(0, 1).select(["plan", "unit", "trouble", "read_s", "embed_s", "engine"]).to_pylist()[0]
    unit = Unit(first["plan"], first["unit"], len(block))
    report = UnitReport(
        unit.plan,
        unit.number,
        unit.num_images,
        trouble=first["trouble"],
        read_s=first["read_s"],
        embed_s=first["embed_s"],
        engine=first["engine"],
    )
    if report.trouble is not None:
        return report
    good = pc.is_null(block["code"])
    rows = finish(block.filter(good).select([*(field.name for field in IMAGE_FIELDS), "embedding"]))
    rejects = block.filter(pc.invert(good)).select(REJECT_SCHEMA.names).cast(REJECT_SCHEMA)
    try:
        committed = commit_unit(table, unit, rows, rejects, {**run, "engine": report.engine})
    except (OSError, TransientError) as error:
        return replace(report, trouble=f"It can't be committed: {type(error).__name__}: {error}")
    return replace(report, embedded=committed.embedded, rejected=committed.rejected, created=committed.created)
