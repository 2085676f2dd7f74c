"""A unit of a manifest's images while it is read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pyarrow as pa

from pipeline import storage
from pipeline.errors import ImageReject, RejectCode, TransientError
from pipeline.refs import SOURCE_NAMES, extra_schema
from pipeline.sources import web
from pipeline.sources.absence import absent
from pipeline.sources.base import Fetched
from pipeline.sources.fetch import fetch_in_order
from pipeline.sources.manifest_entries import HTTP_REFUSED, HTTP_SCHEMES, NEVER_THERE, is_verdict, reject_of
from pipeline.storage import StorageOptions, Store


class ManifestReading:
    """A unit of single files from anywhere, several of them on their way at once.

    See `pipeline.sources.base.Reading`.

    Args:
        refs: What the unit promises.
        root: Where the manifest's relative entries begin.
        stores: By their schemes; further ones are made as they are needed.
        options: Of the object stores that are made.
        allow_http: Whether to read from public web servers.
        max_bytes: Longest image (bytes).
        concurrent_reads: Files on their way at once.
    """

    def __init__(
        self,
        refs: pa.Table,
        root: str,
        stores: dict[str, Store],
        options: StorageOptions,
        allow_http: bool,
        max_bytes: int,
        concurrent_reads: int,
    ) -> None:
        self._refs, self._root, self._stores = refs, root, dict(stores)
        self._allow_http, self._max_bytes, self._concurrent_reads = allow_http, max_bytes, concurrent_reads
        versions = dict(zip(refs["uri"].to_pylist(), refs["version"].to_pylist(), strict=True))
        self._verdicts = {uri: version for uri, version in versions.items() if is_verdict(version)}
        self._never_there = {uri for uri, version in versions.items() if version == NEVER_THERE}
        for kind in {storage.scheme(uri) for uri in refs["uri"].to_pylist() if uri not in self._verdicts}:
            if kind not in HTTP_SCHEMES:
                self._stores.setdefault(kind, storage.store_for(f"{kind}://", options))
        self._buckets: set[str] = set()
        self._lock = threading.Lock()

    def images(self) -> Iterator[Fetched]:
        """Yield every image."""
        yield from fetch_in_order(self._refs["uri"].to_pylist(), self._fetch, self._concurrent_reads)

    def rows(self) -> pa.Table:
        """Return what the manifest says of them."""
        return self._refs.select([*SOURCE_NAMES, *extra_schema(self._refs.schema).names])

    def _fetch(self, uri: str) -> Fetched:
        try:
            return Fetched(uri, self._data(uri))
        except ImageReject as reject:
            return Fetched(uri, reject)

    def _data(self, uri: str) -> bytes:
        if uri in self._verdicts:
            raise reject_of(self._verdicts[uri])
        kind = storage.scheme(uri)
        if kind in HTTP_SCHEMES:
            if not self._allow_http:  # the plan may be of a run that did
                raise ImageReject("read", RejectCode.REFUSED, HTTP_REFUSED)
            return web.fetch(uri, self._max_bytes)
        try:
            data = self._stores[kind].read_bytes(uri, self._max_bytes)
        except OSError as error:
            reject = self._absent(error, kind, uri)
            if reject is None:
                raise
            raise reject from None
        if kind != "file":
            self._buckets.add(storage.holder(uri))
        return data

    def _absent(self, error: OSError, kind: str, uri: str) -> ImageReject | None:
        """Return the reject of a file that isn't there; see `pipeline.sources.absence.absent`."""
        store, reason = self._stores[kind], "There is no such file."
        if kind == "file":
            if storage.scheme(self._root) == "file" and not os.path.isdir(self._root):
                raise TransientError(f"The folder {storage.printable(self._root)} is gone. Mount it, and run again.")
            place = None if uri in self._never_there else storage.holder(uri)
            return absent(error, store, place, reason, or_above=True)
        bucket = storage.holder(uri)
        with self._lock:  # one look for all that wait here
            reject = absent(error, store, None if bucket in self._buckets else bucket, reason)
            self._buckets.add(bucket)
        return reject
