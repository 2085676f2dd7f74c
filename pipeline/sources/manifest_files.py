"""A manifest as a file: CSV, TSV, JSON Lines or Parquet, its columns and types, its rows as record batches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.sources.folder import REFS_PER_TABLE
from pipeline.storage import Store

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".parq": "parquet",
}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
#: Text that is read at a time. The first such piece of a CSV file also decides on the types of its columns.
_BLOCK_BYTES = 8 * 2**20


class ManifestFile:
    """The file that a manifest is.

    Args:
        uri: Where it is: a local path, or a remote URI.
        store: What holds it.

    Attributes:
        uri: Where it is.
        store: What holds it.
        shown: How its URI is shown.
        kind: ``csv``, ``tsv``, ``json`` or ``parquet``.

    Raises:
        ConfigError: Its name tells no kind.
    """

    def __init__(self, uri: str, store: Store) -> None:
        self.uri, self.store = uri, store
        self.shown = storage.local_uri(uri) if storage.scheme(uri) == "file" else uri
        self.kind = _SUFFIXES.get(os.path.splitext(uri)[1].lower(), "")
        if not self.kind:
            raise ConfigError(f"Expected a manifest named *{', *'.join(_SUFFIXES)}, got {self.shown}. Rename it.")

    @property
    def is_csv(self) -> bool:
        """Whether it is CSV or TSV, whose values are text, with types that are guessed."""
        return self.kind in _DELIMITERS

    def require(self) -> None:
        """Refuse a manifest that is not there, or is empty.

        Raises:
            ConfigError: It is none that can be read.
        """
        info = self.store.info(self.uri)
        if info is None or not info.size:
            found = "an empty file" if info else "a folder" if self.store.is_folder(self.uri) else "nothing"
            raise ConfigError(f"Expected a manifest at {self.shown}, found {found} there. Check --source.")

    def types(self) -> pa.Schema:
        """Return its columns and their types. Reads the first piece of a CSV file, and JSON Lines to their end.

        Raises:
            ConfigError: It can't be read.
        """
        with self._opened() as file:
            types = _types(file, self.kind)
            list(types.names)  # names that are no UTF-8 fail here
        return types

    @contextmanager
    def batches(self, types: pa.Schema, names: Sequence[str]) -> Iterator[Iterator[pa.RecordBatch]]:
        """Open it, and give its rows; what is found to be wrong with it while it is open becomes a `ConfigError`.

        Args:
            types: The columns to read, with the types to read them as.
            names: Of all columns, in their order.
        """
        with self._opened(names) as file:
            yield _batches(file, self.kind, types)

    @contextmanager
    def _opened(self, names: Sequence[str] = ()) -> Iterator[IO[bytes]]:
        try:
            with self.store.open(self.uri) as file:
                yield file
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
            text, advice = storage.scrub(str(error)).rstrip("."), "Correct it, and run again."
            if isinstance(error, UnicodeDecodeError) or "UTF8" in text:
                text, advice = f"expected UTF-8, got other bytes ({text})", "Convert it to UTF-8."
            elif re.search("onversion error|changed from|incompatible types", text):
                if names:
                    text = re.sub(r"CSV column #(\d+)", lambda match: f"column {names[int(match[1])]!r}", text)
                if self.is_csv:
                    text += f" (the first {_BLOCK_BYTES >> 20} MiB decide on the types)"
                advice = "Convert the column to one type, leave it out by --columns, or write the manifest as Parquet."
            raise ConfigError(f"Manifest {self.shown} can't be read: {text}. {advice}") from None


def _types(file: IO[bytes], kind: str) -> pa.Schema:
    if kind == "parquet":
        return pq.ParquetFile(file, pre_buffer=False).schema_arrow
    if kind == "json":
        types = pa.schema([])
        for block in _json_blocks(file):  # all of them, since any object may have keys that no other has
            types = pa.unify_schemas([types, _json(block).schema], promote_options="permissive")
        return types
    with _csv(file, kind) as reader:
        types = reader.schema
    if any(pa.types.is_binary(field.type) for field in types):
        raise pa.ArrowInvalid("invalid UTF8 data")
    # A column that is empty so far will hold text, if anything.
    return pa.schema([field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in types])


def _batches(file: IO[bytes], kind: str, types: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a manifest with the columns that ``types`` names, as these types."""
    if kind == "parquet":
        parquet = pq.ParquetFile(file, pre_buffer=False)  # which would fetch the columns of all row groups ahead
        for batch in parquet.iter_batches(REFS_PER_TABLE, columns=types.names):
            batch.validate(full=True)  # the reader itself takes any bytes for UTF-8
            yield batch
    elif kind == "json":
        for block in _json_blocks(file):
            yield from _json(block, types).to_batches()
    else:
        with _csv(file, kind, types) as reader:
            yield from reader


def _csv(file: IO[bytes], kind: str, types: pa.Schema | None = None) -> pa.csv.CSVStreamingReader:
    chosen = {} if types is None else {"include_columns": types.names, "column_types": types}
    return pa.csv.open_csv(
        file,
        pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),  # with threads, errors tell no row
        pa.csv.ParseOptions(
            delimiter=_DELIMITERS[kind],
            newlines_in_values=True,
            invalid_row_handler=lambda row: "error" if row.text.strip() else "skip",  # blank, but not empty
        ),
        pa.csv.ConvertOptions(**chosen),
    )


def _json_blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield whole lines. pyarrow's own streaming reader would let the first block decide on columns and types."""
    while block := file.read(_BLOCK_BYTES):
        block += file.readline()
        block.decode()  # pyarrow takes any bytes for UTF-8
        if block.strip():
            yield block


def _json(block: bytes, types: pa.Schema | None = None) -> pa.Table:
    known = {} if types is None else {"explicit_schema": types, "unexpected_field_behavior": "ignore"}
    size = pa.json.ReadOptions(block_size=len(block) + 1)  # else no line may be longer than 1 MiB
    return pa.json.read_json(pa.BufferReader(block), size, pa.json.ParseOptions(**known))
