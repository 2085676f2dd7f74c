"""The only door to files: list, read, create-only put, and the spelling of URIs.

A local file's URI is its plain absolute path, so that any tool opens it as it stands. A path that is no valid UTF-8
(POSIX allows any bytes) is written as a percent-encoded ``file://`` URI instead, since Parquet strings are UTF-8.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit, urlunsplit

from filelock import FileLock

from pipeline.errors import ConfigError

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
# Up to white space: rather too much of a text than the tail of a secret.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
#: Schemes that weights may be read from, besides local paths.
REMOTE_SCHEMES = ("s3", "gs", "az", "http", "https")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One listed file.

    Args:
        uri: Where it is.
        size: Its length in bytes.
        version: Changes whenever the content does: for a local file its size and modification time.
    """

    uri: str
    size: int
    version: str


def scheme(uri: str) -> str:
    """Return the URI's scheme in lower case, ``file`` for a plain path."""
    head, separator, _ = uri.partition("://")
    return head.lower() if separator and _SCHEME.fullmatch(head) else "file"


def redact(uri: str) -> str:
    """Return ``uri`` without user info, query and fragment, fit for logs and artefacts."""
    if scheme(uri) == "file":
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:  # brackets or odd characters where the host should be
        return f"{scheme(uri)}://…"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def scrub(text: str) -> str:
    """Return a text with every URI in it redacted: libraries put whole URLs into their error messages."""
    return _URI.sub(lambda match: redact(match.group()), text)


def local_uri(path: str) -> str:
    """Return the URI of a local path."""
    path = os.path.abspath(os.path.expanduser(path))
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def printable(text: str) -> str:
    """Return a name from the file system as valid Unicode, with U+FFFD for bytes that are no UTF-8."""
    return os.fsencode(text).decode("utf-8", "replace")


def local_path(uri: str) -> str:
    """Return the path of a local URI.

    Raises:
        ConfigError: The URI is not local.
    """
    if scheme(uri) != "file":
        raise ConfigError(f"Expected a local path, got {redact(uri)}. Only local folders are supported here.")
    if uri.lower().startswith("file://"):
        return os.fsdecode(unquote_to_bytes(uri[len("file://") :]))
    return os.path.abspath(os.path.expanduser(uri))


def list_files(root: str) -> Iterator[FileInfo]:
    """Yield every file below a local folder, folder by folder in name order.

    Symbolic links are followed, save where a link leads back into a folder that is being walked; one that leads nowhere
    is listed, since its name promises a file. Names that start with a dot are skipped, as shells do, and so are pipes,
    sockets and devices, whose reading might never end.
    """
    yield from _walk(local_path(root), frozenset())


def _walk(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[FileInfo]:
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    above |= {here}
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        try:
            info = entry.stat()
        except OSError:  # a link that leads nowhere, or round in a circle
            yield FileInfo(local_uri(entry.path), 0, "missing")
            continue
        if stat.S_ISDIR(info.st_mode):
            yield from _walk(entry.path, above)
        elif stat.S_ISREG(info.st_mode):
            yield FileInfo(local_uri(entry.path), info.st_size, f"{info.st_size}-{info.st_mtime_ns}")


def read_bytes(uri: str, max_bytes: int) -> bytes:
    """Return a file's bytes, but no more than ``max_bytes`` + 1 of them.

    Raises:
        FileNotFoundError: There is no such file, or its name leads round in a circle.
        OSError: It can't be read now.
    """
    try:
        with open(local_path(uri), "rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        if error.errno in _NO_SUCH_FILE:
            raise FileNotFoundError(error.errno, error.strerror, uri) from None
        raise


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


def require_folder(uri: str, option: str) -> None:
    """Refuse a place for output that is no folder and can't become one.

    Raises:
        ConfigError: It, or something above it, is a file.
    """
    path = Path(local_path(uri))
    existing = next(place for place in (path, *path.parents) if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"Expected a folder, or a place for one, at {path} ({option}); {existing} is a file.")


def exists(uri: str) -> bool:
    """Return whether a local file or folder exists."""
    return os.path.exists(local_path(uri))


def list_names(folder: str) -> list[str]:
    """Return the names in a local folder in order, without hidden and temporary ones; none if there's no folder."""
    try:
        names = os.listdir(local_path(folder))
    except FileNotFoundError:
        return []
    return sorted(name for name in names if not name.startswith("."))


@contextlib.contextmanager
def lock(uri: str) -> Iterator[None]:
    """Keep other processes that lock the same local file out for the length of a block."""
    path = Path(local_path(uri))
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def put_if_absent(uri: str, data: bytes) -> bool:
    """Create a file, whole or not at all, unless one of that name is there.

    The bytes go to a hidden temporary file beside it, are flushed to disk, and then get their name by a hard link,
    which fails where the name is taken. A crash at any point leaves either no file of that name or a complete one.

    Returns:
        Whether this call created it. False: somebody else's file stands and was not touched.

    Raises:
        OSError: The file system refused (disk full, permissions).
    """
    path = Path(local_path(uri))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            with lock(f"{path.parent}/.lock"):  # exFAT and some network mounts: a rename would replace silently
                if path.exists():
                    return False
                os.rename(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(uri: str, data: bytes) -> None:
    """Write a local file atomically, in place of any that is there."""
    path = Path(local_path(uri))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


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
