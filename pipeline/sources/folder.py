"""A folder tree of image files, local or in a bucket; labels and splits are components of the path."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from pipeline import storage
from pipeline.errors import ConfigError, TransientError
from pipeline.images import sniff
from pipeline.refs import REF_SCHEMA, SOURCE_NAMES
from pipeline.sources.absence import absent
from pipeline.sources.base import Fetched, Reading
from pipeline.sources.fetch import CONCURRENT_READS, fetch_in_order
from pipeline.sources.paths import label_rule, split_rule, wanted
from pipeline.storage import FileInfo, Store

#: Rows of one table of refs.
REFS_PER_TABLE = 16_384

# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".jp2", ".j2k", ".jxl", ".avif", ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".exr", ".hdr",
    ".svg", ".eps", ".psd", ".ico", ".dng", ".cr2", ".nef", ".arw",
))
# What lies beside images; not worth opening.
_OTHER_SUFFIXES = frozenset((
    ".txt", ".md", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".html", ".htm", ".log", ".pdf", ".py",
    ".ipynb", ".npy", ".npz", ".mat", ".pkl", ".pt", ".pth", ".parquet", ".arrow", ".zip", ".tar", ".gz", ".tgz", ".7z",
    ".rar", ".mp4", ".mov", ".avi", ".mkv", ".webm", ".mp3", ".wav", ".db", ".sqlite", ".ini", ".cfg", ".safetensors",
))
# fmt: on


class FolderSource:
    """Images below a folder.

    A file promises an image by its suffix, decodable here or not, so that none is lost in silence: what can't be
    decoded becomes a reject. Where the suffix is none that is known (``img_v1.0``), the first bytes decide. All other
    files are passed over and counted in ``skipped``.

    Args:
        root: The folder.
        store: What holds it.
        label_from: See `pipeline.sources.paths.label_rule`.
        split_from: See `pipeline.sources.paths.split_rule`.
        include: Patterns of which a file must match one.
        exclude: Patterns of which it must match none.
        concurrent_reads: Files on their way at once.
    """

    containers = False

    def __init__(
        self,
        root: str,
        store: Store | None = None,
        label_from: str = "parent",
        split_from: str = "auto",
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        concurrent_reads: int = CONCURRENT_READS,
    ) -> None:
        self._root = storage.absolute(root)
        self._store = store or storage.store_for(self._root)
        self._label_from, self._split_from = label_from, split_from
        self._include, self._exclude = include, exclude
        self._concurrent_reads = concurrent_reads
        self.skipped: Counter[str] = Counter()
        label_rule(label_from, split_from == "auto"), split_rule(split_from)  # a wrong one must fail here

    @property
    def identity(self) -> str:
        """What tells this source from others."""
        return f"folder {storage.local_uri(self._root) if storage.scheme(self._root) == 'file' else self._root}"

    def columns(self) -> pa.Schema:
        """Return no columns, once the folder is known to be there."""
        if not self._store.is_folder(self._root):
            kind = "a file" if self._store.info(self._root) else "nothing"
            raise ConfigError(f"Expected a folder of images at {self._root}, found {kind} there. Check --source.")
        return pa.schema([])

    def refs(self, unit_size: int) -> Iterator[pa.Table]:  # noqa: ARG002
        """Yield every image, folder by folder in name order."""
        self.skipped.clear()
        label = label_rule(self._label_from, self._split_from == "auto")
        split, is_wanted = split_rule(self._split_from), wanted(self._include, self._exclude)
        chosen = bool(self._include or self._exclude)
        begin = len(self._root.rstrip("/")) + 1
        columns: tuple[list[str | None], ...] = ([], [], [], [])
        for info in self._store.list_files(self._root):
            path = info.uri if not info.uri.startswith("file://") else storage.local_path(info.uri)
            relative = path[begin:]
            if chosen and not is_wanted(storage.printable(relative)):
                self.skipped["left out by pattern"] += 1
                continue
            suffix = os.path.splitext(relative)[1].lower()
            if suffix not in IMAGE_SUFFIXES and (suffix in _OTHER_SUFFIXES or not self._looks_like_image(info, suffix)):
                self.skipped[storage.printable(suffix) or "(no suffix)"] += 1
                continue
            parts = relative.split("/")
            for column, value in zip(
                columns, (info.uri, info.version, label(parts) or None, split(parts)), strict=True
            ):
                column.append(value)
            if len(columns[0]) == REFS_PER_TABLE:
                yield _table(columns)
                columns = ([], [], [], [])
        if columns[0]:
            yield _table(columns)

    def _looks_like_image(self, info: FileInfo, suffix: str) -> bool:
        """Return whether a file is an image, or may have been one before it was cut to nothing."""
        try:
            return (info.size == 0 and not suffix) or sniff(self._store.read_bytes(info.uri, 16)) is not None
        except OSError:
            return True  # reading it will tell

    def read(self, refs: pa.Table, max_bytes: int) -> Reading:
        """Begin to read a unit."""
        return FileReading(refs, self._store, self._root, max_bytes, self._concurrent_reads)


def _table(columns: tuple[list[str | None], ...]) -> pa.Table:
    uris, versions, labels, splits = columns
    labels = [None if label is None else storage.printable(label) for label in labels]
    ones = pa.repeat(pa.scalar(1, pa.int32()), len(uris))
    arrays = [pa.array(uris, pa.string()), pa.array(versions, pa.string()), ones]
    return pa.Table.from_arrays(
        [*arrays, pa.array(labels, pa.string()), pa.array(splits, pa.string())], schema=REF_SCHEMA
    )


class FileReading:
    """A unit of single files, several of them on their way at once; see `pipeline.sources.base.Reading`."""

    def __init__(self, refs: pa.Table, store: Store, root: str, max_bytes: int, concurrent_reads: int) -> None:
        self._refs, self._store, self._root = refs, store, root
        self._max_bytes, self._concurrent_reads = max_bytes, concurrent_reads

    def images(self) -> Iterator[Fetched]:
        """Yield every image."""
        yield from fetch_in_order(self._refs["uri"].to_pylist(), self._fetch, self._concurrent_reads)

    def rows(self) -> pa.Table:
        """Return what the plan knows of them."""
        return self._refs.select(list(SOURCE_NAMES))

    def _fetch(self, uri: str) -> Fetched:
        try:
            return Fetched(uri, self._store.read_bytes(uri, self._max_bytes))
        except Exception as error:  # the unit says which of its images it was
            reject = absent(error, self._store, self._root)
            if reject is None:
                raise TransientError(f"{uri} can't be read now: {storage.explained(error)}") from error
            return Fetched(uri, reject)
