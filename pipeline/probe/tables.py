"""The embedding table of a dataset and a backbone: made once, then found again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.bundled import BUNDLED
from pipeline.contract import canonical_json
from pipeline.errors import ConfigError, TableError
from pipeline.probe.options import ProbeOptions
from pipeline.probe.suite import BUNDLED_PREFIX, DATA, BackboneEntry, Dataset
from pipeline.progress import ProgressCallback
from pipeline.run_options import EmbeddingOptions
from pipeline.sources.options import SourceOptions


def source_of(dataset: Dataset, options: ProbeOptions) -> SourceOptions:
    """Return where a dataset's images are; those that come with the package are written there first.

    Raises:
        ConfigError: It needs --data, or there are no such images.
    """
    source = dataset.source
    if DATA in source:
        if options.data is None:
            raise ConfigError(f"Its source is {source}. Say with --data which folder {DATA} is.")
        source = source.replace(DATA, options.data.rstrip("/"))
    if source.startswith(BUNDLED_PREFIX):
        source = _write_bundled(source.removeprefix(BUNDLED_PREFIX), options)
    return SourceOptions(source=source, **dataset.source_options)


def _write_bundled(name: str, options: ProbeOptions) -> str:
    if name not in BUNDLED:
        raise ConfigError(f"Expected {BUNDLED_PREFIX} to be followed by one of {', '.join(BUNDLED)}; got {name}.")
    output = storage.absolute(options.output)
    if storage.scheme(output) != "file":
        raise ConfigError(f"Images that come with the package are written to --output, so it must be local: {output}.")
    folder = Path(storage.local_path(output)) / "images" / name
    BUNDLED[name](folder)
    return str(folder)


def require_source(source: SourceOptions) -> None:
    """Find out early, before a backbone is loaded, that a dataset isn't there.

    Raises:
        ConfigError: It isn't, or not as it was described.
        OSError: It can't be read now.
    """
    from pipeline.sources.detect import open_source

    open_source(source).columns()


def embed_dataset(
    source: SourceOptions,
    backbone: BackboneEntry,
    table: str,
    options: ProbeOptions,
    on_progress: ProgressCallback | None,
) -> dict[str, Any]:
    """Embed what the table doesn't hold yet, and return the run's record.

    Raises:
        PipelineError: As `pipeline.embed.embed`.
        TableError: The table holds images of another source.
    """
    from pipeline.embed import EmbedOptions, embed

    given = {**_set_fields(options, set(EmbeddingOptions.model_fields)), **_set_fields(source)}
    _require_no_other_source(source, table, options)
    return embed(
        EmbedOptions(
            table=table,
            backbone=backbone.backbone,
            weights=backbone.weights,
            preprocess=backbone.preprocess,
            dtype=options.dtype,
            **given,
        ),
        on_progress,
    )


def _set_fields(options: SourceOptions | ProbeOptions, names: set[str] | None = None) -> dict[str, Any]:
    chosen = options.model_fields_set if names is None else options.model_fields_set & names
    return {name: getattr(options, name) for name in chosen}


def _require_no_other_source(source: SourceOptions, uri: str, options: ProbeOptions) -> None:
    """Refuse to add a dataset to a table of another one of the same name, or of the same one elsewhere."""
    from pipeline.sources.detect import open_source
    from pipeline.table import list_plans, open_table

    identity = open_source(source).identity
    others = {plan.source for plan in list_plans(open_table(uri, options.table_storage_options))} - {identity}
    if others:
        raise TableError(
            f"Table {uri} holds images of {storage.redact(min(others))}; this run has {storage.redact(identity)}. Use "
            "another --output, or remove the table."
        )


def content_key(uri: str, options: ProbeOptions, *rest: Any) -> str:
    """Return a digest (hex) of a table's content, by the names and versions of its files, and of other values."""
    from pipeline.table import open_table, read_info

    table = open_table(uri, options.table_storage_options)
    files = [(storage.base_name(info.uri), info.version) for info in table.store.list_files(f"{table.uri}/data")]
    return hashlib.sha256(canonical_json([read_info(table).digest, files, *rest]).encode()).hexdigest()
