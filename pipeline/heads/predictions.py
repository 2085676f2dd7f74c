"""Rows of predictions from rows with embeddings."""

from __future__ import annotations

import pyarrow as pa

from pipeline.heads.artefact import Head
from pipeline.heads.metrics import TOP_K
from pipeline.table import embeddings
from pipeline.table.schema import PREDICTION_SCHEMA


def classify(rows: pa.Table, head: Head) -> pa.Table:
    """Turn rows with embeddings into rows of `PREDICTION_SCHEMA`."""
    probabilities = head.probabilities(embeddings(rows["embedding"]))
    best = (-probabilities).argsort(axis=1, kind="stable")[:, :TOP_K]
    names = [[head.classes[place] for place in places] for places in best]
    values = [row[places].tolist() for row, places in zip(probabilities, best, strict=True)]
    return pa.Table.from_arrays(
        [
            *(rows[name] for name in ("uri", "sha256", "label", "split")),
            pa.array([row[0] for row in names], pa.string()),
            pa.array([row[0] for row in values], pa.float32()),
            pa.array(names, pa.list_(pa.string())),
            pa.array(values, pa.list_(pa.float32())),
        ],
        schema=PREDICTION_SCHEMA,
    )
