"""Classify: the rows of a table, or the images of a source in the same pass that embeds them."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from pipeline import storage
from pipeline.contract import require_same_features
from pipeline.errors import TableError
from pipeline.heads import Head, classify, load_head
from pipeline.options import Options, flags
from pipeline.progress import Progress, ProgressCallback
from pipeline.run_options import RunOptions
from pipeline.sources.options import SourceOptions
from pipeline.table import (
    Ledger,
    Table,
    TableInfo,
    check_info,
    committed_names,
    create_table,
    data_files,
    encode,
    iter_files,
    list_plans,
    open_table,
    probe,
    read_file,
    read_info,
    take_out,
)
from pipeline.table.schema import embedding_type

logger = logging.getLogger(__name__)


class _PredictWhat(Options):
    head: str = Field(description="Folder of the head.")
    output: str = Field(description="Folder of the predictions, as Parquet; created, or completed.")
    table: str | None = Field(None, description="Embedding table to classify; give this or --source.")
    weights: str | None = Field(
        None, description="With --source: weights of the backbone; unset: those that the head's contract names."
    )


class _PredictSource(SourceOptions):
    source: str | None = Field(  # type: ignore[assignment]  # here one may do without
        None, description="Images to embed and classify, as for jobs.embed; give this or --table."
    )


class PredictOptions(RunOptions, _PredictSource, _PredictWhat):
    """Classify the rows of a table, or the images of a source, with a head. The options of a run go with --source."""

    @model_validator(mode="after")
    def _one_input(self) -> PredictOptions:
        if (self.table is None) == (self.source is None):
            raise ValueError("give exactly one of --table and --source")
        of_a_run = (set(RunOptions.model_fields) | set(SourceOptions.model_fields) | {"weights"}) - _WITH_A_TABLE
        given = self.model_fields_set & of_a_run
        if self.table is not None and given:
            names = flags(sorted(given))
            raise ValueError(f"{names} can be used with --source only, since a table's images are embedded already")
        return self


#: Options of a run that mean something without a source, too.
_WITH_A_TABLE = {"verbose", "table_storage_options"}


def predict(options: PredictOptions, on_progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Classify, and write one row an image: ``uri``, the true ``label`` where known, the prediction and the top 5.

    Returns:
        The run's record, as plain JSON values.

    Raises:
        ContractMismatch: The head was trained on other features than the input's.
        RunIncomplete: Images are pending; the same call again goes on.
        TooManyRejects: All images are done, but too many of them are rejects.
    """
    head = load_head(options.head, options.table_storage_options)
    target = open_table(options.output, options.table_storage_options)
    storage.require_folder(target.uri, "--output")
    info = TableInfo("predictions", head.contract, None, head.sha256)
    check_info(target, info)
    if options.table is not None:
        embedded = open_table(options.table, options.table_storage_options)
        record = _predict_table(embedded, target, info, head, on_progress)
    else:
        record = _predict_source(options, target, info, head, on_progress)
    return {"job": "predict", "head": storage.absolute(options.head), "head_sha256": head.sha256, **record}


def _predict_source(
    options: PredictOptions,
    table: Table,
    info: TableInfo,
    head: Head,
    on_progress: ProgressCallback | None,
) -> dict[str, Any]:
    # Ray and PyTorch take seconds to import: a table is classified without them.
    from pipeline.runs import plan_all, run
    from pipeline.sources.detect import described, open_source
    from pipeline.targets import Target, backbone_of

    plans = {plan.name for plan in list_plans(table)}
    _refuse_other_input(table, [name for name in committed_names(table) if name.rpartition("-")[0] not in plans])
    source = open_source(options)
    advice = "Give the weights that it was trained with as --weights."
    backbone = backbone_of(
        head.contract, options.weights, options.cache_dir, f"Head {options.head}", advice, options.table_storage_options
    )
    vector = embedding_type("float32", head.contract.embedding_dim)
    finish = partial(_classify, head=head)
    target = Target(table, info, backbone, vector, lambda _: finish)
    return run(options, source, target, partial(plan_all, options, source, target, described(options)), on_progress)


def _classify(rows: pa.Table, plan: str, head: Head) -> pa.Table:  # noqa: ARG001
    return classify(rows, head)


def _predict_table(
    embedded: Table, table: Table, info: TableInfo, head: Head, on_progress: ProgressCallback | None
) -> dict[str, Any]:
    started = time.perf_counter()
    stored = read_info(embedded)
    if stored.kind != "embeddings":
        raise TableError(f"Expected a table of embeddings at {embedded.uri}, got one of {stored.kind}. Check --table.")
    require_same_features(
        head.contract, stored.contract, "The head", f"Use a head that was trained on the features of {embedded.uri}."
    )
    uris = data_files(embedded)
    names = {uri: uri.rsplit("/", 1)[-1].removesuffix(".parquet") for uri in uris}
    committed = committed_names(table)
    _refuse_other_input(table, sorted(committed - set(names.values())))
    counts = {uri: len(rows) for uri, rows in iter_files(embedded, ["uri"])}
    planned = sum(counts.values())
    done = sum(count for uri, count in counts.items() if names[uri] in committed)
    if not planned:
        raise TableError(f"Expected embeddings in {embedded.uri}, but it has no rows yet. Run jobs.embed first.")
    create_table(table, info)
    table = probe(table)
    new = 0
    for uri in uris:
        name = names[uri]
        if name in committed:
            _follow(table, name, read_file(embedded, uri, ["uri"])["uri"])
            continue
        rows = read_file(embedded, uri, ["uri", "sha256", "label", "split", "embedding"])
        table.store.put_if_absent(table.data_uri(name), encode(classify(rows, head), {}))
        new += len(rows)
        if on_progress is not None:
            on_progress(Progress(planned, done + new, 0, new, time.perf_counter() - started))
    return {
        "status": "done",
        "table": table.uri,
        "contract": head.contract.to_json(),
        "ledger": Ledger(planned, planned, 0, 0).to_json(),
        "new": {"embedded": new, "rejected": 0},
        "seconds": round(time.perf_counter() - started, 3),
    }


def _follow(table: Table, name: str, uris: pa.ChunkedArray) -> None:
    """Take out predictions of rows that have left the input's file, since their images were replaced or pruned."""
    there = read_file(table, table.data_uri(name), ["uri"])["uri"]
    gone = there.filter(pc.invert(pc.is_in(there, value_set=uris.combine_chunks())))
    if len(gone):
        take_out(table, name, gone.combine_chunks())


def _refuse_other_input(table: Table, foreign: list[str]) -> None:
    if foreign:
        raise TableError(
            f"{table.uri} holds predictions of another input (for instance data/{foreign[0]}.parquet), which would mix "
            "with those of this one. Use another --output."
        )
