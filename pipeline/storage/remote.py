"""Objects in S3, Google Cloud Storage and Azure Blob Storage, through fsspec."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from functools import cached_property
from io import BytesIO
from typing import IO, Any

from pipeline.errors import ConfigError
from pipeline.storage.base import FileInfo, StorageOptions
from pipeline.storage.errors import as_os_errors, status_of
from pipeline.storage.retry import retried
from pipeline.storage.uris import base_name, redact, scrub
from pipeline.storage.walk import Page, walk

#: Connections of one process to one store: as many as are read at once, and some for other work.
_MAX_CONNECTIONS = 96
_CONFLICT, _PRECONDITION_FAILED, _NO_SUCH_RANGE, _NOT_IMPLEMENTED = 409, 412, 416, 501
#: Files on a page of 1,000 that make a folder one of files, not of folders.
_MANY_FILES = 500
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}


class RemoteStore:
    """One object store; see `pipeline.storage.base.Store`. Travels to other processes as its scheme and options.

    Args:
        scheme: ``s3``, ``gs`` or ``az``.
        options: Keyword arguments of the fsspec file system.
    """

    def __init__(self, scheme: str, options: StorageOptions) -> None:
        self._scheme, self._options = scheme, dict(options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self._scheme, repr(sorted(self._options.items()))))

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteStore, (self._scheme, self._options)

    @cached_property
    def _fs(self) -> Any:
        import fsspec  # here, since most processes never open a remote file

        options: dict[str, Any] = {"use_listings_cache": False, **self._options}
        if self._scheme == "s3":
            own = {
                # Waits with jitter, and sends fewer requests a second once the store asks to slow down.
                "retries": {"mode": "adaptive", "total_max_attempts": 3},
                "max_pool_connections": _MAX_CONNECTIONS,
                "connect_timeout": 10,
                "read_timeout": 60,
            }
            options["config_kwargs"] = {**own, **options.get("config_kwargs", {})}
        try:
            return fsspec.filesystem(self._scheme, **options)
        except ImportError as error:
            package = _PACKAGES.get(self._scheme, "its package")
            raise ConfigError(
                f"Expected {package} to be installed for {self._scheme}:// URIs: {error}. Run: pip install {package}"
            ) from None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The storage options for {self._scheme}:// are wrong: {scrub(str(error))}") from None

    def list_files(self, root: str) -> Iterator[FileInfo]:
        """Yield every object below a prefix."""
        with as_os_errors(root):
            yield from walk(self, root)

    @retried
    def entries(self, folder: str) -> list[FileInfo | str] | None:
        """Return what is directly below a prefix, for `pipeline.storage.walk`.

        In S3, folders end with their slash, since a key may have several in a row.
        """
        if self._scheme == "s3":
            return self._s3_entries(folder)
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

    def _s3_entries(self, folder: str) -> list[FileInfo | str] | None:
        bucket, prefix = _bucket_and_prefix(folder)
        request = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/"}
        items: dict[str, FileInfo | str] = {}
        while True:
            answer = self._list_page(request)
            items.update({item["Key"]: _s3_info(bucket, item) for item in answer.get("Contents", ())})
            folders = (item["Prefix"] for item in answer.get("CommonPrefixes", ()))
            items.update({key: f"s3://{bucket}/{key}" for key in folders})
            if not answer.get("IsTruncated"):
                break
            if len(answer.get("Contents", ())) > _MANY_FILES:
                return None
            request["ContinuationToken"] = answer["NextContinuationToken"]
        # What is called as the prefix itself stands for an empty folder.
        wanted = (key for key in sorted(items) if key != prefix and not key[len(prefix) :].startswith("."))
        return [items[key] for key in wanted]

    def pages(self, folder: str) -> Iterator[Page]:
        """Yield every object below a prefix, a page of the store's listing at a time."""
        if self._scheme != "s3":
            with as_os_errors(folder):
                found = self._fs.find(self._path(folder), detail=True)
            yield [_file_info(self._uri(name), entry) for name, entry in found.items() if not _hidden(name, folder)]
            return
        bucket, prefix = _bucket_and_prefix(folder)
        request = {"Bucket": bucket, "Prefix": prefix}
        while True:
            answer = self._list_page(request)
            yield [
                _s3_info(bucket, item)
                for item in answer.get("Contents", ())
                if not item["Key"].endswith("/") and "/." not in f"/{item['Key'][len(prefix) :]}"
            ]
            if not answer.get("IsTruncated"):
                return
            request["ContinuationToken"] = answer["NextContinuationToken"]

    @retried
    def _list_page(self, request: dict[str, Any]) -> dict[str, Any]:
        with as_os_errors(request["Bucket"]):
            answer: dict[str, Any] = self._fs.call_s3("list_objects_v2", **request, **self._fs.req_kw)
            return answer

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
        """Return whether any object's key begins so; an empty bucket counts, too."""
        bucket, _, key = self._path(uri).partition("/")
        with as_os_errors(uri):
            try:
                if self._scheme != "s3":
                    return bool(self._fs.isdir(self._path(uri)))
                request = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "MaxKeys": 1}
                answer = self._fs.call_s3("list_objects_v2", **request, **self._fs.req_kw)
                return not key or bool(answer.get("KeyCount"))
            except FileNotFoundError:
                return False

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
        """Open an object; a small one is fetched at once."""
        with as_os_errors(uri):
            file: IO[bytes] = self._fs.open(self._path(uri), "rb", block_size=block_bytes, cache_type="readahead")
            if getattr(file, "size", None) is not None and file.size <= block_bytes:  # type: ignore[attr-defined]
                with file:
                    return BytesIO(file.read())
            return file

    @retried
    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Create an object unless it is there, in one conditional PUT where the store has them.

        Where it has not, the object is looked for first: then two writers at the same moment can both believe that
        they created it, and the later one's bytes stay.
        """
        with as_os_errors(uri):
            try:
                self._fs.pipe_file(self._path(uri), data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if status_of(error) == _PRECONDITION_FAILED:
                    return False
                if status_of(error) == _CONFLICT:  # somebody else is creating it at this moment
                    raise OSError(errno.EBUSY, f"Another writer is creating {redact(uri)}.") from error
                if status_of(error) != _NOT_IMPLEMENTED:
                    raise
                if self._fs.exists(self._path(uri)):
                    return False
                self._fs.pipe_file(self._path(uri), data)
        return True

    @retried
    def replace(self, uri: str, data: bytes) -> None:
        """Write an object: a PUT is atomic."""
        with as_os_errors(uri):
            self._fs.pipe_file(self._path(uri), data)

    @retried
    def replace_if(self, uri: str, data: bytes, version: str) -> bool:
        """Write an object in place of one of a known ETag; in S3 the store itself compares."""
        if self._scheme == "s3":
            bucket, _, key = self._path(uri).partition("/")
            with as_os_errors(uri):
                try:
                    self._fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfMatch=f'"{version}"')
                    return True
                except FileNotFoundError:
                    return False
                except OSError as error:
                    if status_of(error) == _PRECONDITION_FAILED:
                        return False
                    if status_of(error) != _NOT_IMPLEMENTED:
                        raise
        info = self.info(uri)
        if info is None or info.version != version:
            return False
        self.replace(uri, data)
        return True

    def _path(self, uri: str) -> str:
        return uri.partition("://")[2].rstrip("/")

    def _uri(self, name: str) -> str:
        return f"{self._scheme}://{name.rstrip('/')}"


def _bucket_and_prefix(folder: str) -> tuple[str, str]:
    bucket, _, key = folder.partition("://")[2].partition("/")
    return bucket, key if not key or key.endswith("/") else f"{key}/"


def _s3_info(bucket: str, item: dict[str, Any]) -> FileInfo:
    return FileInfo(f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"].strip('"'))


def _file_info(uri: str, entry: dict[str, Any]) -> FileInfo:
    changes = [entry.get(name) for name in ("ETag", "etag", "md5Hash", "updated", "LastModified", "last_modified")]
    version = next((str(value).strip('"') for value in changes if value), str(entry.get("size") or ""))
    return FileInfo(uri, int(entry.get("size") or 0), version)


def _hidden(name: str, folder: str) -> bool:
    """Return whether an object or a folder on the way to it, below ``folder``, begins with a dot."""
    below = name[len(folder.partition("://")[2]) :]
    return "/." in f"/{below.lstrip('/')}"
