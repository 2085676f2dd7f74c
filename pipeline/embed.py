"""The embed job: every image of a source into an embedding table."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

from pydantic import Field

from pipeline.int8.options import Int8Options
from pipeline.progress import ProgressCallback
from pipeline.run_options import FeatureOptions
from pipeline.sources.options import SourceOptions


class _EmbedWhat(FeatureOptions):
    table: str = Field(
        description="Folder of the embedding table, local or in an object store; created, or completed and extended."
    )


class EmbedOptions(Int8Options, _EmbedWhat, SourceOptions):  # in this order --help begins with the source
    """Embed every image of a source into a table of Parquet files."""


def embed(options: EmbedOptions, on_progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Embed every image of a source that the table doesn't hold yet.

    Args:
        options: What to do.
        on_progress: Called a few times a second while the work goes on.

    Returns:
        The run's record, as plain JSON values.

    Raises:
        ConfigError: It can't be done as asked.
        RunIncomplete: Images are pending; the same call again goes on.
        TooManyRejects: All images are done, but too many of them are rejects.
    """
    # Ray and PyTorch take seconds to import: not before the options are known to be right.
    from pipeline import cluster
    from pipeline.sources.detect import described, open_source
    from pipeline.table import TableInfo, open_table, table_exists

    source = open_source(options)
    table = open_table(options.table, options.table_storage_options)
    # Where there is no table, there is work to do, so Ray starts while the backbone is looked up and the source listed.
    with contextlib.nullcontext() if table_exists(table) else cluster.starting(options.verbose):
        from pipeline.int8.choose import choose_backbone
        from pipeline.runs import plan_all, run
        from pipeline.targets import backbone_spec, embedding_target

        given = backbone_spec(options.backbone, options.weights, options.preprocess, options.cache_dir)
        chosen = choose_backbone(given, table, source, options)
        info = TableInfo("embeddings", chosen.backbone.contract, options.dtype)
        target = embedding_target(table, info, chosen.backbone, chosen.network)
        plan = partial(plan_all, options, source, target, described(options))
        return {"job": "embed", **run(options, source, target, plan, on_progress), **chosen.report}
