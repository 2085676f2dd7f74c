"""Read a tar from its beginning to its end, whatever state it is in.

Python's `tarfile` reads the headers, but takes damage for the end of the tar, and can't tell damage from storage in
trouble. So it gets its bytes through a stream that can, and what it calls the end is looked at again here. Nothing is
ever extracted to disk.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, cast

from pipeline.errors import ImageReject, RejectCode
from pipeline.storage import scrub

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER_BYTES = 2**20
#: Longest header of a kind that holds a name or a table of attributes: `tarfile` reads it as a whole.
_MAX_HEADER_BYTES = 2**20
_LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class TarReader:
    """The members of a tar, in their order.

    Args:
        file: The tar, at its beginning; plain or compressed with gzip, bzip2 or xz.

    Raises:
        ImageReject: Also while it is read: ``empty`` or ``unsupported`` where the file is no tar, ``truncated`` or
            ``undecodable`` where the rest of it can't be read.
        OSError: Also while it is read: the storage is in trouble.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._stream = stream = _Stream(file)
        if not stream.head:
            raise ImageReject("read", RejectCode.EMPTY, "The shard has 0 bytes.")
        with self._parsing():
            self._tar = tarfile.TarFile(
                fileobj=cast(Any, stream), tarinfo=_Header, encoding="utf-8", errors="surrogateescape"
            )

    @property
    def position(self) -> int:
        """Bytes of the tar, decompressed, that have been passed."""
        return self._stream.tell()

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        while True:
            with self._parsing():
                member = self._tar.next()
            if member is None:
                break
            cast(Any, self._tar).members.clear()  # it keeps them all, to be able to go back
            if member.size < 0:
                raise self._damage(RejectCode.UNDECODABLE, f"a member has a size of {member.size} bytes")
            yield member
        self._check_end()

    def read(self, member: tarfile.TarInfo, most: int) -> bytes:
        """Return the bytes of the member that came last, but no more than ``most`` of them."""
        size = min(member.size, most)
        self._stream.seek(member.offset_data)
        data = self._stream.read(size)
        if len(data) < size:
            raise self._damage(RejectCode.TRUNCATED, f"it ends after {len(data)} of the member's {member.size} bytes")
        return data

    @contextlib.contextmanager
    def _parsing(self) -> Iterator[None]:
        try:
            yield
        except (ImageReject, OSError, MemoryError):  # of the stream below
            raise
        except Exception as error:  # tarfile raises most built-in exceptions on damaged headers
            stream = self._stream
            if stream.tell() <= tarfile.BLOCKSIZE:
                reason = (
                    f"Expected a tar, plain or compressed with gzip, bzip2 or xz; the file starts with bytes "
                    f"{stream.head[:8].hex(' ')}."
                )
                raise ImageReject("read", RejectCode.UNSUPPORTED, reason) from error
            code = RejectCode.TRUNCATED if stream.ended else RejectCode.UNDECODABLE
            raise self._damage(code, str(error) or type(error).__name__) from error

    def _check_end(self) -> None:
        """Refuse an end that is none: `tarfile` also calls it the end where a header is damaged or cut off."""
        header = self._stream.last
        if len(header) < tarfile.BLOCKSIZE:
            raise self._damage(RejectCode.TRUNCATED, "it ends without the mark of a tar's end")
        if any(header):
            raise self._damage(RejectCode.UNDECODABLE, "no member's header is where one should be")
        while rest := self._stream.read(_BUFFER_BYTES):  # to the end, where gzip has its checksum
            if rest.count(0) < len(rest):
                raise self._damage(RejectCode.UNDECODABLE, "bytes follow the tar's end; are these several tars in one?")

    def _damage(self, code: RejectCode, what: str) -> ImageReject:
        return _damage(self._stream.tell(), code, what)


def _damage(position: int, code: RejectCode, what: str) -> ImageReject:
    reason = f"The tar is cut off or damaged before byte {position}: {what}. What follows there can't be read."
    return ImageReject("read", code, reason)


class _Header(tarfile.TarInfo):
    """A member's header that can't make `tarfile` go back, or take as much memory as the tar asks for."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _LONG_HEADERS and header.size > _MAX_HEADER_BYTES):
            raise tarfile.ReadError(f"a header says that {header.size} bytes of names or attributes follow")
        return header


class _Stream:
    """The bytes of a tar, decompressed: what `tarfile` needs of a file, forward only.

    Its errors are told apart: `OSError` is trouble of the storage, `ImageReject` damage of the compressed bytes.
    """

    def __init__(self, file: IO[bytes]) -> None:
        raw = io.BufferedReader(_Storage(file), _BUFFER_BYTES)
        self._position = 0
        self.head = self._take(raw.peek, 16)[:16]
        self._bytes = _decompressed(raw, self.head)
        self.last = b""
        self.ended = False

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end."""
        data = self._take(self._bytes.read, size)
        self._position += len(data)
        self.last, self.ended = data, len(data) < size
        return data

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self._position

    def seek(self, position: int) -> None:
        """Read on up to a place, or to the end."""
        if position < self._position:
            raise _damage(self._position, RejectCode.UNDECODABLE, f"a member begins at byte {position}, inside another")
        while self._position < position and self.read(min(position - self._position, _BUFFER_BYTES)):
            pass

    def _take(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            return read(size)
        except _StorageError as error:
            raise error.error from None
        except MemoryError:
            raise
        except Exception as error:  # zlib.error, LZMAError, and OSError where gzip or bzip2 data is damaged
            code = RejectCode.TRUNCATED if isinstance(error, EOFError) else RejectCode.UNDECODABLE
            raise _damage(self._position, code, str(error) or type(error).__name__) from error


def _decompressed(file: io.BufferedReader[Any], head: bytes) -> IO[bytes]:
    # The decompressors of the standard library, not those of tarfile's stream mode: that one passes over checksums,
    # and over all but the first of several gzip streams in a file.
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        import bz2  # here, since some builds of Python lack it

        return cast(IO[bytes], bz2.BZ2File(file))
    if head.startswith((b"\xfd7zXZ", b"\x5d\x00\x00\x80")):
        import lzma  # as above

        return cast(IO[bytes], lzma.LZMAFile(file))
    return cast(IO[bytes], file)


class _StorageError(Exception):
    """Carries an error of the storage past everything that might take it for damage."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _Storage(io.RawIOBase):
    """A file of a store, whose every error is a `_StorageError`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._file.read(min(len(view), _BUFFER_BYTES))  # not an image twice in memory
        except OSError as error:
            raise _StorageError(error) from error
        except MemoryError:
            raise
        except Exception as error:  # object stores' clients have errors of their own
            raise _StorageError(OSError(errno.EIO, f"{type(error).__name__}: {scrub(str(error))}")) from error
        view[: len(data)] = data
        return len(data)
