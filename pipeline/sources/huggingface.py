"""Hugging Face datasets: saved with ``save_to_disk``, or folders of Parquet files in the layout of the hub.

Nothing is asked of the hub, and nothing is written below the home folder.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

from pipeline import storage
from pipeline.errors import ConfigError, ImageReject, RejectCode, TransientError
from pipeline.sources.absence import absent
from pipeline.sources.base import Reading
from pipeline.sources.parquet import PARQUET_SUFFIXES, ParquetSource
from pipeline.sources.paths import split_name
from pipeline.sources.rows import RowLayout, RowOptions, layout_of
from pipeline.sources.slices import Batches, RowReading, Slice, slice_refs
from pipeline.storage import LocalStore, StorageOptions, Store

#: Rows of a batch, whose images are in memory together.
BATCH_ROWS = 32
_STATE, _INFO, _DICT = "state.json", "dataset_info.json", "dataset_dict.json"


class HuggingFaceSource:
    """Rows of a dataset of the `datasets` library.

    What ``save_to_disk`` wrote is opened by ``datasets.load_from_disk`` and mapped into memory; a remote one is first
    copied into the node's folder for temporary files, one split at a time. Files in the layout of the hub are read as
    they are, by a `ParquetSource`: the library would first make a copy of them all in a format of its own.

    Args:
        uri: The dataset's folder.
        storage_options: Of its file system.
        image_column: As for `pipeline.sources.rows.RowOptions`, like the rest.
        label_from: Column of labels; numbers become their class names.
        split_from: Column of splits. Where ``auto`` finds none, the split that the rows were saved as.
        columns: Other columns that travel into the table.
    """

    containers = True

    def __init__(
        self,
        uri: str,
        storage_options: StorageOptions | None = None,
        image_column: str | None = None,
        label_from: str = "auto",
        split_from: str = "auto",
        columns: str = "all",
    ) -> None:
        place = storage.absolute(uri)
        self._uri = storage.local_uri(place) if storage.scheme(place) == "file" else place
        self._store: Store = storage.store_for(place, storage_options)
        self._options = RowOptions(image_column, label_from, split_from, columns)
        self._hub = ParquetSource(place, self._store, image_column, label_from, split_from, columns)
        self._splits: dict[str, str | None] | None = None
        self._layout: RowLayout | None = None
        self._opened: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}  # nothing open travels

    @property
    def identity(self) -> str:
        """What tells this source from others."""
        return f"huggingface {self._uri}"

    @property
    def skipped(self) -> Counter[str]:
        """What was passed over while listing."""
        return self._hub.skipped

    def columns(self) -> pa.Schema:
        """Return the columns that travel, by the first split."""
        return self._decided().schema if self._folders() else self._hub.columns()

    def refs(self, unit_size: int) -> Iterator[pa.Table]:
        """Yield slices of every split, and check the columns of each."""
        self._splits, self._layout, self._opened = None, None, {}  # the dataset may have changed since
        if self._folders():
            yield from slice_refs(self._parts(self._decided()), unit_size)
        else:
            yield from self._hub.refs(unit_size)

    def read(self, refs: pa.Table, max_bytes: int) -> Reading:
        """Begin to read a slice."""
        if not self._folders():
            return self._hub.read(refs, max_bytes)
        piece, layout = Slice.of(refs), self._decided()
        split = self._folders().get(piece.container) if self._options.split_from == "auto" else None
        at_path = partial(self._read_path, max_bytes=max_bytes)
        return RowReading(piece, layout, lambda: self._batches(piece, layout), max_bytes, split, at_path)

    def _folders(self) -> dict[str, str | None]:
        """Return the folders that `datasets.Dataset` was saved to, with their splits; none for the hub's layout."""
        if self._splits is None:
            if self._store.info(storage.join(self._uri, _DICT)):
                names = self._json(self._uri, _DICT).get("splits", [])
                self._splits = {storage.join(self._uri, name): split_name(name) for name in names}
            elif self._store.info(storage.join(self._uri, _STATE)):
                self._splits = {self._uri: split_name(self._json(self._uri, _STATE).get("_split"))}
            elif self._store.is_folder(self._uri) and any(
                info.uri.lower().endswith(PARQUET_SUFFIXES) for info in self._store.list_files(self._uri)
            ):
                self._splits = {}
            else:
                raise ConfigError(
                    "Expected a dataset that save_to_disk of the datasets library wrote, or Parquet files, in "
                    f"{self._uri}, found neither. Check --source and --format."
                )
        return self._splits

    def _json(self, folder: str, name: str) -> dict[str, Any]:
        uri = storage.join(folder, name)
        try:
            content = json.loads(self._store.read_bytes(uri))
        except ValueError as error:
            raise ConfigError(f"Expected JSON in {uri}: {error}. Save the dataset again.") from None
        return content if isinstance(content, dict) else {}

    def _version(self, folder: str) -> str:
        # Not that of the opened dataset, to which `load_from_disk` has already done something.
        return str(self._json(folder, _STATE).get("_fingerprint"))

    def _decided(self) -> RowLayout:
        if self._layout is None:
            first = next(iter(self._folders()))
            self._layout = layout_of(self._planned(first).data.schema, self._options, first)
        return self._layout

    def _parts(self, layout: RowLayout) -> Iterator[tuple[str, str, int]]:
        for folder in self._folders():
            dataset = self._planned(folder)
            layout.check(dataset.data.schema, folder)
            yield folder, self._version(folder), len(dataset)

    def _planned(self, folder: str) -> Any:
        try:
            return self._dataset(folder)
        except (FileNotFoundError, ValueError) as error:
            reason = storage.scrub(str(error))
            raise ConfigError(f"The dataset in {folder} can't be opened: {reason} Save it again.") from None

    def _dataset(self, folder: str) -> Any:
        """Return the `datasets.Dataset` in a folder.

        Raises:
            FileNotFoundError: It isn't there, or not whole.
            ValueError: It is damaged.
            OSError: It can't be read now.
        """
        if folder not in self._opened:
            library, local = _library(), storage.scheme(folder) == "file"
            path = storage.local_path(folder) if local else str(self._local_copy(folder))
            try:
                self._opened[folder] = library.load_from_disk(path, keep_in_memory=False)
            except (KeyError, TypeError) as error:
                raise ValueError(f"{type(error).__name__}: {error}.") from error
            except OSError as error:
                if error.errno is None and not isinstance(error, FileNotFoundError):  # Arrow's, of the content
                    raise ValueError(str(error)) from error
                raise
        return self._opened[folder]

    def _batches(self, piece: Slice, layout: RowLayout) -> Batches:
        try:
            dataset = self._dataset(piece.container)
            layout.check(dataset.data.schema, piece.container)
            # Arrow rows are as they were saved: no image is decoded, though a feature may say `decode=True`.
            chosen = dataset.with_format("arrow", columns=layout.types.names)
            end = min(piece.start + piece.num_rows, len(dataset))
            for row in range(piece.start, end, BATCH_ROWS):
                place = row
                for batch in chosen[row : min(row + BATCH_ROWS, end)].to_batches():
                    batch.validate(full=True)  # mapped as it is, where a wrong offset would end the process
                    yield place, batch
                    place += len(batch)
        except OSError as error:
            reject = absent(error, self._store, self._uri, "The split was listed, but is not there any more.")
            if reject is None:
                raise
            raise reject from None
        except ValueError as error:
            if self._version(piece.container) != piece.version:
                raise TransientError(f"{piece.container} changed while it was read. Run again.") from error
            raise ImageReject("read", RejectCode.UNDECODABLE, f"The dataset is damaged: {error}") from None

    def _read_path(self, path: str, max_bytes: int) -> bytes | None:
        """Return the bytes of a local file that a row of a local dataset names; None where it isn't there."""
        if storage.scheme(self._uri) != "file" or storage.scheme(path) != "file" or "\0" in path:
            return None
        place, store = os.path.join(storage.local_path(self._uri), path), LocalStore()
        try:
            return store.read_bytes(place, max_bytes) if store.info(place) else None  # info: of regular files only
        except OSError as error:
            if storage.may_pass(error) or isinstance(error, PermissionError):
                raise
            return None

    def _local_copy(self, folder: str) -> Path:
        """Copy a split to the node's folder for temporary files, unless a process there has done so before."""
        files = self._json(folder, _STATE).get("_data_files", [])
        names = [_STATE, _INFO, *(os.path.basename(file["filename"]) for file in files)]
        versions = {name: getattr(self._store.info(storage.join(folder, name)), "version", "") for name in names}
        digest = hashlib.sha256(json.dumps([folder, versions]).encode()).hexdigest()[:32]
        target = _private_folder() / digest
        with FileLock(f"{target}.lock"):
            target.mkdir(exist_ok=True)
            for name in names:
                path, unfinished = target / name, target / ".unfinished"
                if path.exists():
                    continue
                with closing(self._store.open(storage.join(folder, name))) as file:
                    storage.copy(file, unfinished)
                os.replace(unfinished, path)
        return target


def _private_folder() -> Path:
    """Return this user's folder among the node's temporary files, which nobody else can write to."""
    folder = Path(tempfile.gettempdir(), f"vision-embedding-pipeline-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:  # not to be taken for a missing dataset
        raise TransientError(f"Expected a folder for temporary files at {folder.parent}, found none.") from None
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or not folder.is_dir():
        raise ConfigError(f"Expected a folder of this user's own at {folder}. Remove it, or set TMPDIR.")
    return folder


def _library() -> Any:
    try:
        return importlib.import_module("datasets")  # here: an optional package, and slow to import
    except ImportError as error:
        raise ConfigError(
            f"Expected the package datasets for a source of the format huggingface: {error}. "
            "Run: pip install 'vision-embedding-pipeline[huggingface]'"
        ) from None
