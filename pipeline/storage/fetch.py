"""Fetch a file whole: into a local file, or as a stream."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import IO

from pipeline.errors import ConfigError
from pipeline.storage.base import StorageOptions
from pipeline.storage.errors import naming
from pipeline.storage.local import LocalStore
from pipeline.storage.uris import REMOTE_SCHEMES, local_path, scheme

#: To connect to a web server; between two pieces of its answer.
_CONNECT_S, _READ_S = 30.0, 60.0


def open_stream(uri: str, options: StorageOptions | None = None) -> IO[bytes]:
    """Open any local or remote file for reading from its start.

    Args:
        uri: Which one.
        options: Of the object store that holds it, see `pipeline.storage.store_for`.

    Raises:
        ConfigError: The scheme is not one of `REMOTE_SCHEMES` or a local path.
        OSError: It can't be opened.
    """
    if scheme(uri) == "file":
        return open(local_path(uri), "rb")
    if scheme(uri) not in REMOTE_SCHEMES:
        raise ConfigError(f"Expected a local path or one of {REMOTE_SCHEMES}, got scheme {scheme(uri)!r}.")
    import fsspec  # here, since most processes never open a remote file

    stream: IO[bytes]
    if scheme(uri) not in ("http", "https"):
        stream = fsspec.open(uri, "rb", **(options or {})).open()
        return stream
    import aiohttp

    # The client's own limit is 5 minutes in all, whatever the size of the file.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
    web = fsspec.filesystem(scheme(uri), client_kwargs={"timeout": timeout})
    # Block size 0: read straight through, since many servers can't serve parts of a file. Any size: or it is asked for
    # first, and every trouble with that question is taken for a missing file.
    stream = web.open(uri, "rb", block_size=0, size=1)
    return stream


def download(uri: str, path: Path, options: StorageOptions | None = None) -> None:
    """Copy a remote file to a local path, by way of a temporary name, so that no half file ever has that path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_prefix(path)}{secrets.token_hex(6)}.tmp")
    try:
        with open_stream(uri, options) as source:
            copy(source, temporary)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def clear_unfinished(path: Path) -> None:
    """Remove what killed processes have left of downloads to a path; for one who holds a lock on it."""
    for left in path.parent.iterdir():
        if left.name.startswith(_prefix(path)) and left.suffix == ".tmp":
            left.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f".{path.name}."


def copy(source: IO[bytes], path: Path) -> None:
    """Copy what is left in an open file to a local file; only the latter is named in errors."""
    with open(path, "wb") as target:
        while chunk := source.read(4 * 2**20):
            with naming(path):
                target.write(chunk)
        with naming(path):
            target.flush()
            os.fsync(target.fileno())


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def note_sha256(path: Path) -> None:
    """Note beside a file of the cache that it is whole, by its SHA-256."""
    LocalStore().replace(str(_record(path)), file_sha256(path).encode())


def kept_sha256(path: Path) -> str | None:
    """Return the SHA-256 (hex) of a file of the cache; None where it is missing, or not as `note_sha256` found it."""
    if not path.is_file() or not _record(path).is_file():
        return None
    digest = file_sha256(path)
    return digest if _record(path).read_bytes().strip() == digest.encode() else None


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def default_cache_dir() -> str:
    """Return the folder of this project's cache, in the user's cache folder (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.path.join(base, "vision-embedding-pipeline")
