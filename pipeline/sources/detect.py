"""From options to a source: by its format, or by what its URI and the files there look like."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.options import flags
from pipeline.sources.base import Source
from pipeline.sources.folder import IMAGE_SUFFIXES, FolderSource
from pipeline.sources.options import SourceOptions
from pipeline.storage import Store

Format = Literal["folder", "manifest", "webdataset", "parquet", "huggingface"]

_MANIFESTS = (".csv", ".tsv", ".jsonl", ".ndjson")
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
#: Files that `datasets.Dataset.save_to_disk` and `DatasetDict.save_to_disk` leave at the top.
_HUGGING_FACE = {"dataset_dict.json", "dataset_info.json", "state.json"}
#: Options that mean something for some formats only.
_ONLY: dict[str, tuple[str, ...]] = {
    "include": ("folder",),
    "exclude": ("folder",),
    "uri_column": ("manifest",),
    "root": ("manifest",),
    "allow_http": ("manifest",),
    "image_column": ("parquet", "huggingface"),
    "columns": ("manifest", "webdataset", "parquet", "huggingface"),
    "concurrent_reads": ("folder", "manifest"),
}
_GIVEN = frozenset(SourceOptions.model_fields)


def open_source(options: SourceOptions) -> Source:
    """Return the source that some options describe. Nothing of it is read but what is needed to tell its format.

    Raises:
        ConfigError: It can't be told what it is, or an option means nothing for its format.
    """
    uri, store, kind = _place(options)
    misplaced = [name for name, formats in _ONLY.items() if name in options.model_fields_set and kind not in formats]
    if misplaced:
        raise ConfigError(
            f"{flags(misplaced)} can't be used with a source of the format {kind} ({storage.redact(uri)})."
        )
    rules: dict[str, Any] = {"label_from": options.label_from, "split_from": options.split_from}
    if kind == "folder":
        rules["label_from"] = "parent" if options.label_from == "auto" else options.label_from
        return FolderSource(
            uri,
            store,
            include=options.include,
            exclude=options.exclude,
            concurrent_reads=options.concurrent_reads,
            **rules,
        )
    rules["columns"] = options.columns
    # Each format's own imports wait until it is needed.
    if kind == "manifest":
        from pipeline.sources.manifest import ManifestSource

        return ManifestSource(
            uri,
            store,
            dict(options.storage_options),
            uri_column=options.uri_column,
            root=options.root,
            allow_http=options.allow_http,
            concurrent_reads=options.concurrent_reads,
            **rules,
        )
    if kind == "webdataset":
        from pipeline.sources.webdataset import WebDatasetSource

        return WebDatasetSource(uri, store, **rules)
    if kind == "parquet":
        from pipeline.sources.parquet import ParquetSource

        return ParquetSource(uri, store, image_column=options.image_column, **rules)
    from pipeline.sources.huggingface import HuggingFaceSource

    return HuggingFaceSource(uri, dict(options.storage_options), image_column=options.image_column, **rules)


def described(options: SourceOptions) -> dict[str, Any]:
    """Return what `open_source` needs to open the same source from any working directory, as plain JSON values."""
    uri, _, kind = _place(options)
    given = {name: value for name, value in options.record().items() if name in _GIVEN & options.model_fields_set}
    root = {"root": storage.absolute(options.root)} if options.root is not None else {}
    return {**given, **root, "source": uri, "format": kind}


def reopened(opened_with: Mapping[str, Any]) -> Source:
    """Return the source of which `described` has returned this.

    Raises:
        ConfigError: It can't be opened any more.
    """
    return open_source(SourceOptions(**opened_with))


def _place(options: SourceOptions) -> tuple[str, Store, Format]:
    uri = storage.absolute(options.source)
    store = storage.store_for(uri, options.storage_options)
    return uri, store, detect(uri, store) if options.format == "auto" else options.format


def detect(uri: str, store: Store) -> Format:
    """Return a source's format by its name, or by the names and columns of the files there.

    Raises:
        ConfigError: There is nothing, or nothing that tells.
    """
    name = uri.lower().rstrip("/")
    if name.endswith(_MANIFESTS):
        return "manifest"
    if name.endswith(_TARS):
        return "webdataset"
    if name.endswith((".parquet", ".parq")):
        return _kind_of_parquet(uri, store)
    names = [entry.lower() for entry in store.list_names(uri)]
    if _HUGGING_FACE & set(names):
        return "huggingface"
    if "data" in names and not _has_images(names):  # the layout of the Hugging Face hub
        names += [entry.lower() for entry in store.list_names(storage.join(uri, "data"))]
    if not _has_images(names):
        if any(entry.endswith(_TARS) for entry in names):
            return "webdataset"
        if any(entry.endswith(".parquet") for entry in names):
            return "parquet"
    return "folder"


def _has_images(names: list[str]) -> bool:
    return any(os.path.splitext(name)[1] in IMAGE_SUFFIXES for name in names)


def _kind_of_parquet(uri: str, store: Store) -> Format:
    if any(mark in uri for mark in "*?[{") or store.is_folder(uri):
        return "parquet"
    try:
        with store.open(uri, 2**18) as file:
            schema = pq.read_schema(file)
    except FileNotFoundError:
        raise ConfigError(f"Expected a Parquet file at {uri}, found nothing there. Check --source.") from None
    except pa.ArrowException as error:
        raise ConfigError(f"Expected a Parquet file at {uri}, but it can't be read: {error}") from None
    return "parquet" if any(holds_images(field.type) for field in schema) else "manifest"


def holds_images(kind: pa.DataType) -> bool:
    """Return whether a column's type is that of encoded images: bytes, or Hugging Face's struct that holds them."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
