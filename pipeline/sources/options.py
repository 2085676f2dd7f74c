"""Options that say where images come from. Imports nothing slow."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipeline.options import Options

Format = Literal["auto", "folder", "manifest", "webdataset", "parquet", "huggingface"]


class SourceOptions(Options):
    """Where images come from, and what is known of them."""

    source: str = Field(
        description="Images: a folder; a manifest (.csv, .tsv, .jsonl, .parquet); tar shards or Parquet files (a path, "
        "folder or pattern, as in 's3://bucket/shard-{000..099}.tar'). Local, s3://, gs:// or az://."
    )
    format: Format = Field("auto", description="What the source is; auto: by its name, see docs/sources.md.")
    include: tuple[str, ...] = Field((), description="folder: take only files that match one of these patterns.")
    exclude: tuple[str, ...] = Field((), description="folder: leave out files that match one of these patterns.")
    label_from: str = Field(
        "auto",
        description="Label of an image. folder: parent, depth:N, regex:PATTERN or none. manifest, parquet, huggingface:"
        " column:NAME or none. webdataset: cls, txt, json:FIELD, regex:PATTERN (of the key) or none.",
    )
    split_from: str = Field(
        "auto",
        description="Split of an image; written like --label-from. folder: auto is a top folder named train, "
        "validation, test or similar.",
    )
    uri_column: str | None = Field(
        None, description="manifest: the column of URIs; unset: uri, path, file, … if there."
    )
    image_column: str | None = Field(
        None, description="parquet, huggingface: the column of images; unset: by its type."
    )
    columns: str = Field(
        "all", description="Other columns or fields that travel into the table: all, none, or names (a,b,c)."
    )
    root: str | None = Field(None, description="manifest: where relative URIs begin; unset: the manifest's folder.")
    allow_http: bool = Field(False, description="manifest: read http:// and https:// entries of public hosts too.")
    storage_options: dict[str, Any] = Field(
        {},
        description='Of the source\'s file system (fsspec), as JSON: {"endpoint_url": …, "anon": true, '
        '"requester_pays": true}. No credentials: those come from the environment.',
    )
    concurrent_reads: int = Field(32, ge=1, le=1024, description="Files on their way at once in one read task.")
