"""Classify: the rows of a table, or the images of a source in the same pass that embeds them."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from pipeline import storage
from pipeline.heads import Predictor, load_head
from pipeline.heads.predict_table import predict_table, refuse_other_input
from pipeline.heads.predictions import prediction_rows
from pipeline.options import Options, flags
from pipeline.progress import ProgressCallback
from pipeline.run_options import RunOptions
from pipeline.sources.options import SourceOptions
from pipeline.table import Table, TableInfo, check_info, committed_names, iter_files, list_plans, open_table
from pipeline.table.schema import embedding_type

_UNKNOWN = "unknown"


class _PredictWhat(Options):
    head: str = Field(description="Folder of the head.")
    output: str = Field(description="Folder of the predictions, as Parquet; created, or completed.")
    table: str | None = Field(None, description="Embedding table to classify; give this or --source.")
    weights: str | None = Field(
        None, description="With --source: weights of the backbone; unset: those that the head's contract names."
    )
    threshold: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Below this probability (0 to 1) the predicted label is --unknown-label; unset: it is a class.",
    )
    unknown_label: str = Field(_UNKNOWN, min_length=1, description="With --threshold: what is predicted below it.")


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

    @model_validator(mode="after")
    def _threshold_of_unknown(self) -> PredictOptions:
        if self.threshold is None and "unknown_label" in self.model_fields_set:
            raise ValueError("--unknown-label says what is predicted below --threshold; give that, too")
        return self


#: Options of a run that mean something without a source, too.
_WITH_A_TABLE = {"verbose", "table_storage_options"}


def predict(options: PredictOptions, on_progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Classify, and write one row an image: ``uri``, the true ``label`` where known, the prediction and the top 5.

    Returns:
        The run's record, as plain JSON values; with a threshold, ``unknown`` counts the output's rows below it.

    Raises:
        ContractMismatch: The head was trained on other features than the input's, or the output is one of another head
            or threshold.
        RunIncomplete: Images are pending; the same call again goes on.
        TooManyRejects: All images are done, but too many of them are rejects.
    """
    head = load_head(options.head, options.table_storage_options)
    output = open_table(options.output, options.table_storage_options)
    storage.require_folder(output.uri, "--output")
    unknown_label = None if options.threshold is None else options.unknown_label
    predictor = Predictor(head, options.threshold, unknown_label)
    info = TableInfo("predictions", head.contract, None, head.sha256, options.threshold, unknown_label)
    check_info(output, info)
    if options.table is not None:
        embedded = open_table(options.table, options.table_storage_options)
        record = predict_table(embedded, output, info, predictor, on_progress)
    else:
        record = _predict_source(options, output, info, predictor, on_progress)
    return {
        "job": "predict",
        "head": storage.absolute(options.head),
        "head_sha256": head.sha256,
        "threshold": options.threshold,
        "unknown": None if unknown_label is None else _count(output, unknown_label),
        **record,
    }


def _predict_source(
    options: PredictOptions,
    output: Table,
    info: TableInfo,
    predictor: Predictor,
    on_progress: ProgressCallback | None,
) -> dict[str, Any]:
    # Ray and PyTorch take seconds to import: a table is classified without them.
    from pipeline.runs import plan_all, run
    from pipeline.sources.detect import described, open_source
    from pipeline.targets import Target, backbone_of

    plans = {plan.name for plan in list_plans(output)}
    refuse_other_input(output, [name for name in committed_names(output) if name.rpartition("-")[0] not in plans])
    source = open_source(options)
    advice = "Give the weights that it was trained with as --weights."
    backbone = backbone_of(
        info.contract, options.weights, options.cache_dir, f"Head {options.head}", advice, options.table_storage_options
    )
    vector = embedding_type("float32", info.contract.embedding_dim)
    target = Target(output, info, backbone, vector, lambda _: _finish, derive=predictor)
    return run(options, source, target, partial(plan_all, options, source, target, described(options)), on_progress)


def _finish(rows: pa.Table, plan: str) -> pa.Table:  # noqa: ARG001
    return prediction_rows(rows, rows["derived"])


def _count(output: Table, label: str) -> int:
    """Return how many of the output's rows have a predicted label."""
    parts = (rows["predicted_label"] for _, rows in iter_files(output, ["predicted_label"]))
    return sum(int(pc.sum(pc.equal(part, label)).as_py() or 0) for part in parts)
