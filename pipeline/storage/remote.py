"""Objects in Google Cloud Storage and Azure Blob Storage, through fsspec; `pipeline.storage.s3` builds on it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from io import BytesIO
from typing import IO, Any

from pipeline.errors import ConfigError
from pipeline.failures import status_of
from pipeline.storage.base import Conditions, FileInfo, StorageOptions, Store
from pipeline.storage.errors import as_os_errors
from pipeline.storage.retry import retried
from pipeline.storage.uris import base_name, scrub
from pipeline.storage.walk import Page, walk

_PRECONDITION_FAILED, _NO_SUCH_RANGE = 412, 416
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}


class RemoteStore:
    """One object store; see `pipeline.storage.base.Store`. Travels to other processes as its arguments.

    Args:
        scheme: ``s3``, ``gs`` or ``az``.
        options: Keyword arguments of the fsspec file system.
        conditions: Which conditions on a PUT the store minds; None: those that stores of its kind do as a rule.
    """

    #: gcsfs and adlfs create on a condition, but can't replace on one.
    usual_conditions = Conditions(replace=False)

    def __init__(self, scheme: str, options: StorageOptions, conditions: Conditions | None = None) -> None:
        self._scheme, self._options = scheme, dict(options)
        self._conditions = conditions or self.usual_conditions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self._scheme, repr(sorted(self._options.items())), self._conditions))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._scheme, self._options, self._conditions)

    @property
    def conditions(self) -> Conditions:
        """Which conditions on a PUT the store minds."""
        return self._conditions

    def probed(self, uri: str) -> Store:  # noqa: ARG002
        """Return this store: both services have always had the condition that is used here."""
        return self

    @cached_property
    def _fs(self) -> Any:
        import fsspec  # here, since most processes never open a remote file

        try:
            return fsspec.filesystem(self._scheme, **{"use_listings_cache": False, **self._client_options()})
        except ImportError as error:
            package = _PACKAGES.get(self._scheme, "its package")
            raise ConfigError(
                f"Expected {package} to be installed for {self._scheme}:// URIs: {error}. Run: pip install {package}"
            ) from None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The storage options for {self._scheme}:// are wrong: {scrub(str(error))}") from None

    def _client_options(self) -> dict[str, Any]:
        return self._options

    def list_files(self, root: str) -> Iterator[FileInfo]:
        """Yield every object below a prefix."""
        yield from walk(self, root)

    @retried
    def entries(self, folder: str) -> list[FileInfo | str] | None:
        """Return what is directly below a prefix, for `pipeline.storage.walk`."""
        with as_os_errors(folder):
            try:
                found = self._fs.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return []
        items: list[FileInfo | str] = []
        for entry in sorted(found, key=lambda entry: str(entry["name"])):
            uri = self._uri(entry["name"])
            marker = entry["type"] != "directory" and str(entry["name"]).endswith("/")  # stands for an empty folder
            if base_name(uri).startswith(".") or uri == folder or marker:
                continue
            items.append(uri if entry["type"] == "directory" else _file_info(uri, entry))
        return items

    def pages(self, folder: str) -> Iterator[Page]:
        """Yield every object below a prefix, all in one page."""
        yield self._all_below(folder)

    @retried
    def _all_below(self, folder: str) -> Page:
        with as_os_errors(folder):
            found = self._fs.find(self._path(folder), detail=True)
        return [_file_info(self._uri(name), entry) for name, entry in found.items() if not _hidden(name, folder)]

    @retried
    def glob(self, pattern: str) -> list[FileInfo]:
        """Return the objects that match."""
        with as_os_errors(pattern):
            found = self._fs.glob(self._path(pattern), detail=True)
        files = ((name, entry) for name, entry in sorted(found.items()) if entry["type"] == "file")
        return [_file_info(self._uri(name), entry) for name, entry in files]

    @retried
    def info(self, uri: str) -> FileInfo | None:
        """Return an object's size and version."""
        with as_os_errors(uri):
            try:
                entry = self._fs.info(self._path(uri))
            except FileNotFoundError:
                return None
        return _file_info(uri, entry) if entry["type"] == "file" else None

    @retried
    def is_folder(self, uri: str) -> bool:
        """Return whether any object's key begins so."""
        with as_os_errors(uri):
            return bool(self._fs.isdir(self._path(uri)))

    @retried
    def list_names(self, folder: str) -> list[str]:
        """Return the names below a prefix."""
        with as_os_errors(folder):
            try:
                found = self._fs.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                return []
        names = (base_name(name) for name in found if name.rstrip("/") != self._path(folder))
        return sorted(name for name in names if not name.startswith("."))

    @retried
    def written_at(self, folder: str) -> dict[str, float]:
        """Return the objects' times of last modification."""
        with as_os_errors(folder):
            try:
                found = self._fs.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
        files = (entry for entry in found if entry["type"] != "directory" and not entry["name"].endswith("/"))
        return {base_name(entry["name"]): _written_at(entry) for entry in files}

    @retried
    def read_bytes(self, uri: str, max_bytes: int | None = None) -> bytes:
        """Return an object's bytes; a longer one's are asked for up to the limit only."""
        with as_os_errors(uri):
            try:
                end = None if max_bytes is None else max_bytes + 1
                data: bytes = self._fs.cat_file(self._path(uri), start=None if end is None else 0, end=end)
            except OSError as error:
                if status_of(error) != _NO_SUCH_RANGE:
                    raise
                return b""  # an empty object has no first byte
        return data

    @retried
    def open(self, uri: str, block_bytes: int = 8 * 2**20) -> IO[bytes]:
        """Open an object; a small one is fetched at once. Each later read is tried again on its own."""
        with as_os_errors(uri):
            file: Any = self._fs.open(self._path(uri), "rb", block_size=block_bytes, cache_type="readahead")
            if file.size is not None and file.size <= block_bytes:
                with file:
                    return BytesIO(file.read())
        fetch = file.cache.fetcher

        @retried
        def fetch_patiently(start: int, end: int) -> bytes:
            with as_os_errors(uri):
                data: bytes = fetch(start, end)
                return data

        file.cache.fetcher = fetch_patiently
        opened: IO[bytes] = file
        return opened

    @retried
    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Create an object unless it is there, in one conditional PUT."""
        with as_os_errors(uri):
            try:
                self._fs.pipe_file(self._path(uri), data, mode="create")
            except OSError as error:
                if isinstance(error, FileExistsError) or status_of(error) == _PRECONDITION_FAILED:
                    return False
                raise
        return True

    @retried
    def replace(self, uri: str, data: bytes) -> None:
        """Write an object: a PUT is atomic."""
        with as_os_errors(uri):
            self._fs.pipe_file(self._path(uri), data)

    def replace_if(self, uri: str, data: bytes, version: str) -> bool:
        """Write an object in place of one of a known version, asked for first: who writes between the two is lost."""
        info = self.info(uri)
        if info is None or info.version != version:
            return False
        self.replace(uri, data)
        return True

    @retried
    def remove(self, uri: str) -> None:
        """Remove an object."""
        with as_os_errors(uri), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(uri))

    def _path(self, uri: str) -> str:
        return uri.partition("://")[2].rstrip("/")

    def _uri(self, name: str) -> str:
        return f"{self._scheme}://{name.rstrip('/')}"


def _file_info(uri: str, entry: dict[str, Any]) -> FileInfo:
    changes = [entry.get(name) for name in ("ETag", "etag", "md5Hash", "updated", "LastModified", "last_modified")]
    version = next((str(value).strip('"') for value in changes if value), str(entry.get("size") or ""))
    return FileInfo(uri, int(entry.get("size") or 0), version)


def _written_at(entry: dict[str, Any]) -> float:
    """Return when an object was written; now, where the listing doesn't tell."""
    times = (entry.get(name) for name in ("LastModified", "updated", "last_modified", "mtime"))
    written = next((time for time in times if time), None)
    if isinstance(written, str):  # as Google writes it: 2026-01-31T12:00:00.000Z
        written = datetime.fromisoformat(written.replace("Z", "+00:00"))
    return written.timestamp() if isinstance(written, datetime) else time.time()


def _hidden(name: str, folder: str) -> bool:
    """Return whether an object or a folder on the way to it, below ``folder``, begins with a dot."""
    below = name[len(folder.partition("://")[2]) :]
    return "/." in f"/{below.lstrip('/')}"
