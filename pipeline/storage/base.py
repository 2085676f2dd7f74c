"""What the project asks of a place for files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Protocol

#: Keyword arguments of the fsspec file system, as in ``{"endpoint_url": "http://…", "anon": True}``.
StorageOptions = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One listed file.

    Args:
        uri: Where it is.
        size: Its length in bytes.
        version: Changes whenever the content does: an object's ETag, a local file's size and modification time.
    """

    uri: str
    size: int
    version: str


@dataclass(frozen=True, slots=True)
class Conditions:
    """Which conditions on writing a file a store minds, in the one step of writing it.

    Where it doesn't mind one, the store is asked what is there first. Then one writer at a time still gets what it asks
    for, but of two at the same moment both may write, and the later one's bytes stay.

    Args:
        create: That no file of that name is there.
        replace: That the file there is of a known version.
    """

    create: bool = True
    replace: bool = True


class Store(Protocol):
    """One kind of storage. All trouble is an `OSError`; what may pass has been tried again before it is raised.

    A `FileNotFoundError` says that there is no such file, a `PermissionError` that access was refused.
    """

    @property
    def conditions(self) -> Conditions:
        """Which conditions on writing a file it is known to mind."""

    def probed(self, uri: str) -> Store:
        """Return this store, or one that goes without the conditions which it turns out not to mind.

        Args:
            uri: A file that is there. It is as it was afterwards, and no other one is made.
        """

    def list_files(self, root: str) -> Iterator[FileInfo]:
        """Yield every file below a folder in an order that depends on the names alone.

        Names that start with a dot are skipped, folders' too, as shells do.
        """

    def glob(self, pattern: str) -> list[FileInfo]:
        """Return the files that a pattern with ``*``, ``?``, ``[]`` or ``**`` matches, in order."""

    def info(self, uri: str) -> FileInfo | None:
        """Return what is known of a file; None where there is none."""

    def is_folder(self, uri: str) -> bool:
        """Return whether there is a folder: for an object store, whether any object's key begins so."""

    def list_names(self, folder: str) -> list[str]:
        """Return the names in a folder in order, without those that start with a dot; none if there's no folder."""

    def written_at(self, folder: str) -> dict[str, float]:
        """Return when each file directly in a folder was written, hidden ones too: seconds since the epoch, by name.

        By the clock of the storage. A file whose time isn't known counts as written now; none if there's no folder.
        """

    def read_bytes(self, uri: str, max_bytes: int | None = None) -> bytes:
        """Return a file's bytes, but no more than ``max_bytes`` + 1 of them."""

    def open(self, uri: str, block_bytes: int = 8 * 2**20) -> IO[bytes]:
        """Open a file to read in it.

        Args:
            uri: Which one.
            block_bytes: Bytes to fetch at a time from a remote store: many to read through, few to read here and there.
        """

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Create a file, whole or not at all, unless one of that name is there.

        Returns:
            Whether this call created it. False: somebody else's file stands and was not touched.
        """

    def replace(self, uri: str, data: bytes) -> None:
        """Write a file atomically, in place of any that is there."""

    def replace_if(self, uri: str, data: bytes, version: str) -> bool:
        """Write a file atomically in place of one of a known version.

        Returns:
            Whether it was written. False: the file there is of another version, or gone, and was not touched.
        """

    def remove(self, uri: str) -> None:
        """Remove a file; one that is gone already is no error. Of use to the audit and the doctor alone."""
