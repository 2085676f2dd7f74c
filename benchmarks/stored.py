"""A table of made features, as large as asked for, to train heads on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.heads import DIM, generate
from pipeline.contract import FeatureContract
from pipeline.table import Table, TableInfo, Unit, commit_unit, create_table, data_schema
from pipeline.table.schema import REJECT_SCHEMA

_UNIT_ROWS = 1024
#: One row in so many is for validation, and as many are for test.
_HELD_OUT_EVERY = 20


def write_table(folder: Path, rows: int) -> str:
    """Write a table of float16 features in units of 1,024 rows, with train, validation and test; return where it is."""
    contract = FeatureContract("made", "00", {"name": "made"}, DIM, "none")
    table = Table(str(folder))
    create_table(table, TableInfo("embeddings", contract, "float16"))
    schema = data_schema("float16", DIM)
    for number, start in enumerate(range(0, rows, _UNIT_ROWS)):
        count = min(_UNIT_ROWS, rows - start)
        made = generate(count, seed=number)
        names = [f"{start + i:064x}" for i in range(count)]
        splits = [{0: "validation", 1: "test"}.get(i % _HELD_OUT_EVERY, "train") for i in range(count)]
        unit = pa.Table.from_arrays(
            [
                pa.array(names),
                pa.array(names),
                pa.array([f"class {place}" for place in made.y]),
                pa.array(splits),
                *2 * [pa.array(np.full(count, 224, np.int32))],
                pa.FixedSizeListArray.from_arrays(pa.array(made.X.astype(np.float16).ravel()), DIM),
            ],
            schema=schema,
        )
        commit_unit(table, Unit("made", number, count), unit, REJECT_SCHEMA.empty_table(), {})
    return str(folder)
