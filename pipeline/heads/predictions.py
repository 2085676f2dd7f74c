"""Predictions from embeddings: the columns that they have in a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.heads.artefact import Head
from pipeline.heads.models import Floats
from pipeline.table import embeddings
from pipeline.table.schema import PREDICTION_FIELDS, PREDICTION_SCHEMA

#: Classes that a prediction names, the most probable first.
TOP_K = 5
#: Rows that are classified at once: their probabilities of all classes are in memory together.
_CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Predictor:
    """Makes predictions of embeddings.

    Args:
        head: What classifies.
        threshold: Where the highest probability is below it (0 to 1), the predicted label is ``unknown_label``; None:
            nowhere.
        unknown_label: What is predicted there; no class may have this name.

    Raises:
        ConfigError: A class has it.
    """

    head: Head
    threshold: float | None = None
    unknown_label: str | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and self.unknown_label in self.head.classes:
            raise ConfigError(
                f"The head has a class named {self.unknown_label!r}, so predictions below --threshold can't be called "
                "so. Use another --unknown-label."
            )

    def __call__(self, X: NDArray[np.floating[Any]]) -> pa.StructArray:
        """Classify features.

        Args:
            X: float32 or float16 of shape (N, D).

        Returns:
            N rows of `PREDICTION_FIELDS`.
        """
        starts = range(0, max(len(X), 1), _CHUNK_ROWS)
        parts = [self._predictions(self.head.probabilities(X[start : start + _CHUNK_ROWS])) for start in starts]
        return pa.concat_arrays(parts)

    def _predictions(self, probabilities: Floats) -> pa.StructArray:
        best = (-probabilities).argsort(axis=1, kind="stable")[:, :TOP_K]
        values = np.take_along_axis(probabilities, best, axis=1)
        num_rows, width = best.shape
        names = pa.array(self.head.classes, pa.string()).take(pa.array(best.reshape(-1)))
        offsets = pa.array(np.arange(0, num_rows * width + 1, width, dtype=np.int32))
        labels = np.asarray(self.head.classes, object)[best[:, 0]]
        if self.threshold is not None:
            labels[values[:, 0] < np.float32(self.threshold)] = self.unknown_label
        columns = [
            pa.array(labels, pa.string()),
            pa.array(values[:, 0], pa.float32()),
            pa.ListArray.from_arrays(offsets, names),
            pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1), pa.float32())),
        ]
        types = [pa.field(field.name, field.type) for field in PREDICTION_FIELDS]
        return pa.StructArray.from_arrays(columns, fields=types)


def prediction_rows(rows: pa.Table, predictions: pa.StructArray | pa.ChunkedArray) -> pa.Table:
    """Return rows of `PREDICTION_SCHEMA`.

    Args:
        rows: N images: ``uri``, ``sha256``, ``label``, ``split``, and whatever else.
        predictions: What a `Predictor` has made of them.
    """
    known = [rows[field.name] for field in PREDICTION_SCHEMA if field not in PREDICTION_FIELDS]
    return pa.Table.from_arrays([*known, *predictions.flatten()], schema=PREDICTION_SCHEMA)


def classify(rows: pa.Table, head: Head) -> pa.Table:
    """Turn rows with embeddings into rows of `PREDICTION_SCHEMA`."""
    return prediction_rows(rows, Predictor(head)(embeddings(rows["embedding"])))
