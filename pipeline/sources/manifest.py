"""A list of images: CSV, TSV, JSON Lines or Parquet with a column of URIs.

Every row becomes a ref. One that can never give an image carries its verdict into the plan, in place of a version, and
nothing is touched for it when its unit is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from pipeline import storage
from pipeline.digests import DigestMap
from pipeline.errors import ConfigError
from pipeline.refs import REF_SCHEMA
from pipeline.sources.base import Reading
from pipeline.sources.fetch import CONCURRENT_READS
from pipeline.sources.folder import REFS_PER_TABLE
from pipeline.sources.manifest_entries import CONCURRENT_LOOK_UPS, Places, is_verdict, look_up, mark_repeated
from pipeline.sources.manifest_files import ManifestFile
from pipeline.sources.manifest_layout import ManifestLayout, ManifestOptions, layout_of
from pipeline.sources.manifest_reading import ManifestReading
from pipeline.sources.manifest_values import extra_values, shown_texts, texts
from pipeline.sources.paths import split_name
from pipeline.storage import LocalStore, StorageOptions, Store


class ManifestSource:
    """Images by a list.

    A column ``version`` or ``etag`` tells one state of an image from another. Without it local files are looked up, and
    the version of anything else is empty, unknown: an object that is replaced goes unnoticed. A row whose image an
    earlier row has named is a reject, as are entries with user info or a query, since neither may be stored; what is
    cut off a rejected row's URI is replaced by ``#row-<number>``.

    What a CSV file leaves empty is null, its first 8 MiB decide on the types of its columns, and a column without a
    name (a pandas index) is left out. URIs in other columns lose user info and signatures too.

    Args:
        uri: The list.
        store: What holds it.
        storage_options: Of the object stores that hold the images.
        uri_column: The column of URIs; None: the first of `pipeline.sources.manifest_layout.URI_COLUMNS` that is there.
        label_from: ``auto`` (a column ``label``), ``column:NAME``, ``none``, or a rule of `pipeline.sources.paths` for
            the path below ``root``, or else below the bucket or ``/``.
        split_from: The same, for splits.
        columns: Other columns that travel: ``all``, ``none``, or names with commas between them.
        root: Where relative entries begin; None: the list's folder.
        allow_http: Whether to read from public web servers.
        concurrent_reads: Files on their way at once.
    """

    containers = False

    def __init__(
        self,
        uri: str,
        store: Store | None = None,
        storage_options: StorageOptions | None = None,
        uri_column: str | None = None,
        label_from: str = "auto",
        split_from: str = "auto",
        columns: str = "all",
        root: str | None = None,
        allow_http: bool = False,
        concurrent_reads: int = CONCURRENT_READS,
    ) -> None:
        uri, self._storage_options = storage.absolute(uri), dict(storage_options or {})
        storage.refuse_secrets(self._storage_options)
        self._file = ManifestFile(uri, store or storage.store_for(uri, self._storage_options))
        if root is not None:  # a scheme that is not allowed fails
            storage.store_for(storage.absolute(root), self._storage_options)
        self._root = os.path.dirname(uri) if root is None else storage.absolute(root)
        self._options = ManifestOptions(uri_column, label_from, split_from, columns)
        self._allow_http, self._concurrent_reads = allow_http, concurrent_reads
        self.skipped: Counter[str] = Counter()

    @property
    def identity(self) -> str:
        """What tells this source from others."""
        return f"manifest {self._file.shown}"

    def columns(self) -> pa.Schema:
        """Return the extra columns. Reads the first piece of a CSV file, and JSON Lines to their end."""
        return self._layout().extra_schema

    def refs(self, unit_size: int) -> Iterator[pa.Table]:  # noqa: ARG002
        """Yield every row, in order."""
        layout, known, number = self._layout(), DigestMap(), 1
        with (
            ThreadPoolExecutor(CONCURRENT_LOOK_UPS, thread_name_prefix="stat") as pool,
            self._file.batches(layout.types, layout.names) as batches,
        ):
            for batch in batches:
                for begin in range(0, len(batch), REFS_PER_TABLE):
                    part = batch.slice(begin, REFS_PER_TABLE)
                    yield self._table(part, layout, number, known, pool)
                    number += len(part)

    def read(self, refs: pa.Table, max_bytes: int) -> Reading:
        """Begin to read a unit."""
        stores: dict[str, Store] = {"file": LocalStore(), storage.scheme(self._file.uri): self._file.store}
        options = (self._storage_options, self._allow_http, max_bytes, self._concurrent_reads)
        return ManifestReading(refs, self._root, stores, *options)

    def _layout(self) -> ManifestLayout:
        self._file.require()
        if storage.scheme(self._root) == "file" and not os.path.isdir(self._root):
            raise ConfigError(f"Expected a folder at {storage.printable(self._root)}, found none. Check --root.")
        return layout_of(self._file, self._options)

    def _table(
        self, part: pa.RecordBatch, layout: ManifestLayout, first: int, known: DigestMap, pool: ThreadPoolExecutor
    ) -> pa.Table:
        """Return the refs of some rows.

        Args:
            part: The rows.
            layout: Which columns are what.
            first: The number of the first of them, counted from 1.
            known: The URIs before them.
            pool: Looks up local files.
        """
        places = Places(self._root, self._file.shown, self._allow_http)
        located = [places.locate(entry, number) for number, entry in enumerate(texts(part, layout.uri), first)]
        uris, versions = [uri for uri, _ in located], [verdict for _, verdict in located]
        labels, splits = (
            shown_texts(part, column)
            if rule is None
            else [
                None if verdict else storage.printable(rule(places.parts(uri)) or "") or None
                for uri, verdict in located
            ]
            for rule, column in (
                (self._options.label_rule(), layout.label),
                (self._options.split_rule(), layout.split),
            )
        )
        mark_repeated(uris, versions, first, known)
        for i, own in enumerate(shown_texts(part, layout.version)):
            if own and not versions[i]:
                versions[i] = f"version {own}" if is_verdict(own) else own
        look_up(uris, versions, pool)
        text = [pa.array(values, pa.string()) for values in (uris, versions, labels, map(split_name, splits))]
        extras = [extra_values(part.column(name), self._file.is_csv) for name in layout.extras]
        ones = pa.repeat(pa.scalar(1, pa.int32()), len(uris))
        schema = pa.schema([*REF_SCHEMA, *layout.extra_schema])
        return pa.Table.from_arrays([*text[:2], ones, *text[2:], *extras], schema=schema)
