"""Files on a local disk or a mounted share."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock

from pipeline.storage.base import Conditions, FileInfo
from pipeline.storage.errors import naming
from pipeline.storage.retry import retried
from pipeline.storage.uris import local_path, local_uri
from pipeline.storage.walk import PAGE_FILES, Page, walk

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class LocalStore:
    """Local files; see `pipeline.storage.base.Store`."""

    @property
    def conditions(self) -> Conditions:
        """All of them: a hard link and a lock stand for them."""
        return Conditions()

    def probed(self, uri: str) -> LocalStore:  # noqa: ARG002
        """Return this store."""
        return self

    def list_files(self, root: str) -> Iterator[FileInfo]:
        """Yield every file below a folder.

        Symbolic links are followed, save where a link leads back into a folder that is being walked; one that leads
        nowhere is listed, since its name promises a file. Pipes, sockets and devices, whose reading might never end,
        are skipped.
        """
        yield from walk(_Tree(local_path(root)), local_path(root))

    def glob(self, pattern: str) -> list[FileInfo]:
        """Return the files that match."""
        paths = sorted(glob.glob(local_path(pattern), recursive=True))
        found = (self.info(local_uri(path)) for path in paths)
        return [info for info in found if info is not None]

    def info(self, uri: str) -> FileInfo | None:
        """Return a file's size and version."""
        try:
            status = os.stat(local_path(uri))
        except OSError as error:
            if error.errno in _NO_SUCH_FILE:
                return None
            raise
        return FileInfo(uri, status.st_size, version_of(status)) if stat.S_ISREG(status.st_mode) else None

    def is_folder(self, uri: str) -> bool:
        """Return whether there is a folder."""
        return os.path.isdir(local_path(uri))

    def list_names(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        try:
            names = os.listdir(local_path(folder))
        except FileNotFoundError:
            return []
        return sorted(name for name in names if not name.startswith("."))

    def written_at(self, folder: str) -> dict[str, float]:
        """Return the files' modification times."""
        times = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(local_path(folder)) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # a writer's temporary file comes and goes
                    if entry.is_file(follow_symlinks=False):
                        times[entry.name] = entry.stat().st_mtime
        return times

    @retried
    def read_bytes(self, uri: str, max_bytes: int | None = None) -> bytes:
        """Return a file's bytes. A name that leads round in a circle is no file."""
        try:
            with open(local_path(uri), "rb") as file:
                found = os.fstat(file.fileno())
                if max_bytes is None or (stat.S_ISREG(found.st_mode) and found.st_size <= max_bytes):
                    return file.read()
                return file.read(max_bytes + 1)  # takes memory for so many, however few there are
        except OSError as error:
            if error.errno in _NO_SUCH_FILE:
                raise FileNotFoundError(error.errno, error.strerror, uri) from None
            raise

    def open(self, uri: str, block_bytes: int = 0) -> IO[bytes]:  # noqa: ARG002
        """Open a file."""
        return open(local_path(uri), "rb")

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Create a file unless it is there.

        The bytes go to a hidden temporary file beside it, are flushed to disk, and then get their name by a hard link,
        which fails where the name is taken. A crash at any point leaves either no file of that name or a complete one.
        """
        path = Path(local_path(uri))
        with _temporary_beside(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                with FileLock(path.parent / ".lock"):  # exFAT and some network mounts: a rename would replace silently
                    if path.exists():
                        return False
                    os.rename(temporary, path)
        sync_folder(path.parent)
        return True

    def replace(self, uri: str, data: bytes) -> None:
        """Write a file atomically."""
        path = Path(local_path(uri))
        with _temporary_beside(path, data) as temporary:
            os.replace(temporary, path)
        sync_folder(path.parent)

    def replace_if(self, uri: str, data: bytes, version: str) -> bool:
        """Write a file atomically in place of a known version; whoever replaces does so under the folder's lock."""
        path = Path(local_path(uri))
        with FileLock(path.parent / ".lock"):
            info = self.info(uri)
            if info is None or info.version != version:
                return False
            self.replace(uri, data)
        return True

    def remove(self, uri: str) -> None:
        """Remove a file."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(local_path(uri))


def version_of(status: os.stat_result) -> str:
    """Return what changes with a local file's content: its size and modification time."""
    return f"{status.st_size}-{status.st_mtime_ns}"


@contextlib.contextmanager
def _temporary_beside(path: Path, data: bytes) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with naming(path), open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Tree:
    """Lists the folders below a root for `pipeline.storage.walk`."""

    def __init__(self, root: str) -> None:
        self._root = root

    def entries(self, folder: str) -> list[FileInfo | str] | None:
        return [] if _identity(folder) in self._above(folder) else list(_entries(folder))

    def pages(self, folder: str) -> Iterator[Page]:
        page: list[FileInfo] = []
        for info in _below(folder, self._above(folder)):
            page.append(info)
            if len(page) == PAGE_FILES:
                yield page
                page = []
        if page:
            yield page

    def _above(self, folder: str) -> frozenset[tuple[int, int]]:
        """Return the folders from the root down to the one that holds ``folder``."""
        parts = Path(folder).relative_to(self._root).parts
        return frozenset(_identity(os.path.join(self._root, *parts[:depth])) for depth in range(len(parts)))


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _entries(folder: str) -> Iterator[FileInfo | str]:
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        try:
            status = entry.stat()
        except OSError:  # a link that leads nowhere, or round in a circle
            yield FileInfo(local_uri(entry.path), 0, "missing")
            continue
        if stat.S_ISDIR(status.st_mode):
            yield entry.path
        elif stat.S_ISREG(status.st_mode):
            yield FileInfo(local_uri(entry.path), status.st_size, version_of(status))


def _below(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[FileInfo]:
    here = _identity(folder)
    if here in above:
        return
    for entry in _entries(folder):
        if isinstance(entry, str):
            yield from _below(entry, above | {here})
        else:
            yield entry
