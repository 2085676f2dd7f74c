"""Read a tar from its beginning to its end, whatever state it is in, and group its members into samples.

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
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, cast

from pipeline.errors import ConfigError, ImageReject, RejectCode
from pipeline.sources.base import Fetched
from pipeline.sources.folder import IMAGE_SUFFIXES
from pipeline.storage import printable, scrub

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Longest field that is kept, and all fields of a tar: they are in memory until it has been read.
MAX_FIELD_BYTES, MAX_FIELDS_BYTES = 16 * 2**20, 2 * 2**30
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


def path_parts(name: str) -> list[str]:
    """Return the folders of a member's name, and its base name; ``./a.jpg`` is ``a.jpg``."""
    return [part for part in name.split("/") if part not in ("", ".")]


def key_and_field(name: str) -> tuple[str, str]:
    """Return the key of the sample that a member belongs to, and its field.

    As WebDataset has it, the key ends at the first dot of the base name: ``a/b.seg.png`` is field ``seg.png`` of
    sample ``a/b``.
    """
    *folders, base = path_parts(name) or [""]
    stem, _, rest = base.partition(".")
    return "/".join([*folders, stem]), rest.lower()


def is_image(name: str) -> bool:
    """Return whether a field is the image of its sample; ``seg.png`` is none."""
    return f".{name}" in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Return whether a member, or a folder on the way to it, begins with a dot, as in ``._a.jpg``."""
    return _is_inside(name) and any(part.startswith(".") for part in path_parts(name))


def _is_inside(name: str) -> bool:
    parts = path_parts(name)
    return bool(parts) and ".." not in parts and not name.startswith("/")


def refusal(member: tarfile.TarInfo) -> ImageReject | None:
    """Return why a member must not be read; None where it may be."""
    if not _is_inside(member.name):
        return _unsafe("a name that stays inside the tar", "an absolute one, an empty one or one with '..'")
    if member.issym() or member.islnk():
        return _unsafe("a file", f"a {'symbolic' if member.issym() else 'hard'} link to {printable(member.linkname)!r}")
    if not member.isreg():
        return _unsafe("a file", f"a device, pipe or other member of type {member.type!r}")
    if member.issparse():
        return ImageReject("read", RejectCode.UNSUPPORTED, "Sparse members are not read. Pack without --sparse.")
    return None


def _unsafe(expected: str, got: str) -> ImageReject:
    return ImageReject("read", RejectCode.UNSAFE, f"Expected {expected}, got {got}. Pack plain files, relative names.")


@dataclass(slots=True)
class Sample:
    """The members that share a key.

    Args:
        num_images: Images among them.
        is_refused: Whether an image among them is of a kind that is never read.
        counts: How often each other field is there.
        again: Name of the second member that is the same field.
        values: The first of each field that is wanted; None where it is longer than `MAX_FIELD_BYTES`.
    """

    num_images: int = 0
    is_refused: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    again: dict[str, str] = field(default_factory=dict)
    values: dict[str, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where something that was fetched comes from.

    Args:
        uri: Its URI, unique in its shard.
        name: The member's name, or the sample's key; empty for the shard itself.
        sample: What belongs to it, whole once the shard has been read; None for a reject that is no sample's image.
    """

    uri: str
    name: str
    sample: Sample | None


class Shard:
    """A tar while it is grouped into samples.

    Args:
        uri: Its URI.
        max_bytes: Longest image (bytes).
        is_wanted: Whether a field is to be kept.

    Attributes:
        places: Where each `Fetched` comes from, in their order.
    """

    def __init__(self, uri: str, max_bytes: int, is_wanted: Callable[[str], bool]) -> None:
        self.places: list[Place] = []
        self._uri, self._max_bytes, self._is_wanted = uri, max_bytes, is_wanted
        self._samples: dict[str, Sample] = {}
        self._uris: set[str] = set()
        self._same: Counter[str] = Counter()
        self._kept_bytes = 0
        self._at: tuple[str, Sample | None] = "", None  # what is being read

    def images(self, file: IO[bytes]) -> Iterator[Fetched]:
        """Yield every image as it comes, one in memory at a time; then what is wrong with samples, and the tar.

        Raises:
            OSError: The storage is in trouble.
            ConfigError: The fields don't fit into memory.
        """
        damage = None
        try:
            tar = TarReader(file)
            for member in tar:
                if not member.isdir() and not is_hidden(member.name):
                    yield from self._member(tar, member)
                self._at = "", None
        except ImageReject as reject:
            damage = reject
        name, sample = self._at
        for key, each in self._samples.items():
            yield from self._faults(printable(key), each, damage)
        if damage is not None and damage.code in (RejectCode.EMPTY, RejectCode.UNSUPPORTED):
            yield self.whole(damage)
        elif damage is not None:
            yield self._fetched(name, damage, sample)

    def whole(self, reject: ImageReject) -> Fetched:
        """Return a reject of the shard itself."""
        self.places.append(Place(self._uri, "", None))
        return Fetched(self._uri, reject)

    def _member(self, tar: TarReader, member: tarfile.TarInfo) -> Iterator[Fetched]:
        name, (key, kind) = printable(member.name), key_and_field(member.name)
        sample = self._samples.setdefault(key, Sample())
        reject = refusal(member)
        if reject is not None:
            sample.is_refused |= is_image(kind)
            yield self._fetched(name, reject)
        elif not is_image(kind):
            self._field(tar, member, sample, printable(kind))
        elif sample.num_images:
            sample.num_images += 1
            reason = f"Sample {printable(key)!r} has {sample.num_images} images or more; the first one is taken."
            yield self._fetched(name, ImageReject("read", RejectCode.DUPLICATE, reason), number=sample.num_images)
        else:
            sample.num_images = 1
            self._at = name, sample
            yield self._fetched(name, tar.read(member, self._max_bytes + 1), sample)

    def _field(self, tar: TarReader, member: tarfile.TarInfo, sample: Sample, kind: str) -> None:
        sample.counts[kind] += 1
        if sample.counts[kind] == 2:
            sample.again[kind] = printable(member.name)
        if sample.counts[kind] > 1 or not self._is_wanted(kind):
            return
        self._at = printable(member.name), None
        value = tar.read(member, member.size) if member.size <= MAX_FIELD_BYTES else None
        sample.values[kind] = value
        self._kept_bytes += len(value or b"")
        if self._kept_bytes > MAX_FIELDS_BYTES:
            raise ConfigError(
                f"Expected less than {MAX_FIELDS_BYTES} bytes of fields beside the images of {self._uri}, got more. "
                "Choose fewer by --columns, or pack smaller shards."
            )

    def _faults(self, key: str, sample: Sample, damage: ImageReject | None) -> Iterator[Fetched]:
        if not sample.num_images and not sample.is_refused and sample.counts:
            kinds = ", ".join(kind or "(no suffix)" for kind in list(sample.counts)[:10])
            cut = " The rest of the shard can't be read." if damage else ""
            reason = (
                f"Expected an image (such as .jpg) in sample {key!r}, got {len(sample.counts)} fields: {kinds}.{cut}"
            )
            yield self._fetched(key, ImageReject("read", RejectCode.MISSING, reason))
        for kind, name in sample.again.items() if sample.num_images else ():
            if sample.counts[kind] > sample.num_images and self._is_wanted(kind):
                reason = f"Sample {key!r} has field {kind!r} {sample.counts[kind]} times; the first one is taken."
                yield self._fetched(name, ImageReject("read", RejectCode.DUPLICATE, reason), number=2)

    def _fetched(self, name: str, data: bytes | ImageReject, sample: Sample | None = None, number: int = 1) -> Fetched:
        """Note an image or a reject, under a URI that is unique in the shard.

        Args:
            name: The member.
            data: Its bytes, or why there are none.
            sample: What belongs to it.
            number: Which of several members of one name it is.
        """
        plain = f"{self._uri}#{name}"
        self._same[plain] += 1  # where to begin: trying all numbers takes long where one name comes ten thousand times
        number = max(number, self._same[plain])
        uri = plain if number == 1 else f"{plain}#{number}"
        while uri in self._uris:
            number += 1
            uri = f"{plain}#{number}"
        self._uris.add(uri)
        self.places.append(Place(uri, name, sample))
        return Fetched(uri, data)


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
