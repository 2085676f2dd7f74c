"""Fetch a file whole: into a local file, or as a stream."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path
from typing import IO

from pipeline.errors import ConfigError
from pipeline.storage.uris import REMOTE_SCHEMES, local_path, scheme


def open_stream(uri: str) -> IO[bytes]:
    """Open any local or remote file for reading from its start.

    Raises:
        ConfigError: The scheme is not one of `REMOTE_SCHEMES` or a local path.
        OSError: It can't be opened.
    """
    if scheme(uri) == "file":
        return open(local_path(uri), "rb")
    if scheme(uri) not in REMOTE_SCHEMES:
        raise ConfigError(f"Expected a local path or one of {REMOTE_SCHEMES}, got scheme {scheme(uri)!r}.")
    import fsspec  # here, since most processes never open a remote file

    # 0: read straight through, since many web servers can't serve parts of a file
    options = {"block_size": 0} if scheme(uri) in ("http", "https") else {}
    stream: IO[bytes] = fsspec.open(uri, "rb", **options).open()
    return stream


def download(uri: str, path: Path) -> None:
    """Copy a remote file to a local path, by way of a temporary name, so that no half file ever has that path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open_stream(uri) as source, open(temporary, "xb") as target:
            shutil.copyfileobj(source, target, 4 * 2**20)
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def default_cache_dir() -> str:
    """Return the folder of this project's cache, in the user's cache folder (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.path.join(base, "vision-embedding-pipeline")
