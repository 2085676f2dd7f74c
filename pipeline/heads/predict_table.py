"""Classify the rows of a table: one file of predictions for each of its data files, under the same name."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract import require_same_features
from pipeline.errors import TableError
from pipeline.failpoints import reach
from pipeline.heads.predictions import Predictor, prediction_rows
from pipeline.progress import Progress, ProgressCallback
from pipeline.table import (
    Ledger,
    Table,
    TableInfo,
    committed_names,
    create_table,
    data_files,
    embeddings,
    encode,
    iter_rows,
    probe,
    read_file,
    read_info,
    take_out,
)
from pipeline.table.amend import read_footer
from pipeline.table.schema import PREDICTION_SCHEMA

#: Files that are read or written at once, at most, and the bytes of embeddings in them, so that large ones come one by
#: one: a file from an object store is in memory as a whole.
_FILES_AT_ONCE, _BYTES_AT_ONCE = 8, 2**29
#: Rows of a file whose embeddings are taken out of it at once.
_ROWS_AT_ONCE = 4096
_FOOTERS_AT_ONCE = 16


def predict_table(
    embedded: Table, output: Table, info: TableInfo, predictor: Predictor, on_progress: ProgressCallback | None
) -> dict[str, Any]:
    """Classify the rows of a table that have no predictions yet.

    A file of predictions is written whole or not at all, and is there once its rows are classified: so a job that was
    killed goes on with the files that are missing. Rows that have left the table since leave the predictions, too.

    Args:
        embedded: The table.
        output: Where the predictions go.
        info: What that says of itself.
        predictor: What makes them.
        on_progress: Called after each file.

    Returns:
        The run's record, as plain JSON values.

    Raises:
        ContractMismatch: The head was trained on other features.
        TableError: There are no embeddings, or the output holds predictions of another input.
    """
    started = time.perf_counter()
    stored = read_info(embedded)
    if stored.kind != "embeddings":
        raise TableError(f"Expected a table of embeddings at {embedded.uri}, got one of {stored.kind}. Check --table.")
    advice = f"Use a head that was trained on the features of {embedded.uri}."
    require_same_features(predictor.head.contract, stored.contract, "The head", advice)
    uris = {uri.rsplit("/", 1)[-1].removesuffix(".parquet"): uri for uri in data_files(embedded)}
    committed = committed_names(output)
    refuse_other_input(output, sorted(committed - set(uris)))
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        counts = dict(zip(uris, pool.map(lambda uri: read_footer(embedded, uri).num_rows, uris.values()), strict=True))
    planned = sum(counts.values())
    if not planned:
        raise TableError(f"Expected embeddings in {embedded.uri}, but it has no rows yet. Run jobs.embed first.")
    create_table(output, info)
    work = _Work(embedded, probe(output), predictor, committed)
    done, new = sum(counts[name] for name in committed), 0
    row_bytes = stored.contract.embedding_dim * (2 if stored.dtype == "float16" else 4)
    at_once = max(1, min(_FILES_AT_ONCE, _BYTES_AT_ONCE // (row_bytes * max(counts.values()))))
    pool = ThreadPoolExecutor(at_once)
    try:
        for created in pool.map(work, uris, uris.values()):
            new += created
            if on_progress is not None:
                on_progress(Progress(planned, done + new, 0, new, time.perf_counter() - started))
    finally:
        pool.shutdown(cancel_futures=True)
    return {
        "status": "done",
        "table": output.uri,
        "contract": info.contract.to_json(),
        "ledger": Ledger(planned, planned, 0, 0).to_json(),
        "new": {"embedded": new, "rejected": 0},
        "seconds": round(time.perf_counter() - started, 3),
    }


@dataclass(frozen=True)
class _Work:
    """Classifies one file of several that are read and written at once; one is classified at a time, on all cores."""

    embedded: Table
    output: Table
    predictor: Predictor
    committed: set[str]
    turn: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, name: str, uri: str) -> int:
        """Return how many rows were written."""
        if name in self.committed:
            self._follow(name, read_file(self.embedded, uri, ["uri"])["uri"])
            return 0
        parts = [PREDICTION_SCHEMA.empty_table()]
        for rows in iter_rows(self.embedded, uri, ["uri", "sha256", "label", "split", "embedding"], _ROWS_AT_ONCE):
            with self.turn:
                parts.append(prediction_rows(rows, self.predictor(embeddings(rows["embedding"]))))
        predictions = encode(pa.concat_tables(parts).combine_chunks(), {})
        reach("data_put", name)
        created = self.output.store.put_if_absent(self.output.data_uri(name), predictions)
        return sum(map(len, parts)) if created else 0

    def _follow(self, name: str, uris: pa.ChunkedArray) -> None:
        """Take out predictions of rows that have left the input's file, since their images were replaced or pruned."""
        there = read_file(self.output, self.output.data_uri(name), ["uri"])["uri"]
        gone = there.filter(pc.invert(pc.is_in(there, value_set=uris.combine_chunks())))
        if len(gone):
            take_out(self.output, name, gone.combine_chunks())


def refuse_other_input(output: Table, foreign: Sequence[str]) -> None:
    """Refuse to add to predictions of another input.

    Args:
        output: Where they are.
        foreign: Names of its files that are none of this input's.

    Raises:
        TableError: There are some.
    """
    if foreign:
        raise TableError(
            f"{output.uri} holds predictions of another input (for instance data/{foreign[0]}.parquet), which would "
            "mix with those of this one. Use another --output."
        )
