"""A table of made features, as large as asked for, to train heads on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.contract import FeatureContract
from pipeline.table import Table, TableInfo, Unit, commit_unit, create_table, data_schema
from pipeline.table.schema import REJECT_SCHEMA

#: Latent dimensions that the features vary in, noise beside those, and share of labels that are wrong: features as
#: correlated as a network's, and classes that overlap, so that no head can be right about all of them.
_LATENT, _NOISE, _WRONG = 128, 0.3, 0.05
#: How far classes are apart, in standard deviations of a latent dimension.
_APART = 0.4
_UNIT_ROWS = 1024
#: One row in so many is for validation, and as many are for test.
_HELD_OUT_EVERY = 20


def features(rows: int, dim: int, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 features of shape (rows, dim), at least 0 like those behind a rectifier, and int64 classes."""
    shape = np.random.default_rng(0)
    mixing = (shape.normal(size=(_LATENT, dim)) / np.sqrt(_LATENT)).astype(np.float32)
    centres = (shape.normal(size=(num_classes, _LATENT)) * _APART).astype(np.float32)
    random = np.random.default_rng(seed)
    y = random.integers(0, num_classes, rows)
    latent = centres[y] + random.standard_normal((rows, _LATENT), np.float32)
    X = latent @ mixing + _NOISE * random.standard_normal((rows, dim), np.float32)
    np.maximum(X, 0, out=X)
    wrong = random.random(rows) < _WRONG
    y[wrong] = random.integers(0, num_classes, int(wrong.sum()))
    return X, y


def write_table(folder: Path, rows: int, dim: int, num_classes: int) -> str:
    """Write a table of float16 features in units of 1,024 rows, with train, validation and test; return where it is."""
    contract = FeatureContract("made", "00", {"name": "made"}, dim, "none")
    table = Table(str(folder))
    create_table(table, TableInfo("embeddings", contract, "float16"))
    schema = data_schema("float16", dim)
    for number, start in enumerate(range(0, rows, _UNIT_ROWS)):
        count = min(_UNIT_ROWS, rows - start)
        X, y = features(count, dim, num_classes, seed=1 + number)
        names = [f"{start + i:064x}" for i in range(count)]
        splits = [{0: "validation", 1: "test"}.get(i % _HELD_OUT_EVERY, "train") for i in range(count)]
        unit = pa.Table.from_arrays(
            [
                pa.array(names),
                pa.array(names),
                pa.array([f"class {place}" for place in y]),
                pa.array(splits),
                *2 * [pa.array(np.full(count, 224, np.int32))],
                pa.FixedSizeListArray.from_arrays(pa.array(X.astype(np.float16).ravel()), dim),
            ],
            schema=schema,
        )
        commit_unit(table, Unit("made", number, count), unit, REJECT_SCHEMA.empty_table(), {})
    return str(folder)
