"""Width and height of a TIFF's first page, and whether the file is whole, before libtiff sees it.

Only the first directory is looked at, in time and memory in proportion to the file. Pillow's plugin copies what each
tag points to, so that a hundred tags that point to the same megabytes cost a hundred times as much.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.headers import Size, cut_off, damaged

#: First bytes of classic TIFF and BigTIFF, in both orders of bytes (TIFF 6.0, section 2).
SIGNATURES = (b"II\x2a\x00", b"MM\x00\x2a", b"II\x2b\x00", b"MM\x00\x2b")

#: As in libtiff (tif_dirread.c, TIFFFetchDirectory).
_MAX_ENTRIES = 4096
#: How far a tile may be longer than its image, as the last tile of a row or column is.
_MAX_TILE = 4096

# By type: bytes of a value (TIFF 6.0, section 2; 13 and 16 to 18 are of later supplements and BigTIFF).
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNSIGNED = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8"}

#: None, CCITT (1D, group 3, group 4), LZW, JPEG, Deflate (two numbers), PackBits. Of data that it can't decompress
#: libtiff makes black pixels, and says so only in its log; the old JPEG (6) has been a source of vulnerabilities.
_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32946, 32773)

_WIDTH, _LENGTH, _COMPRESSION, _TILE_WIDTH, _TILE_LENGTH = 256, 257, 259, 322, 323
#: Where the compressed pieces are, and how long each is: strips, tiles.
_PIECES = ((273, 279), (324, 325))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tag's values: their type, number and place in the file."""

    kind: int
    count: int
    offset: int


def tiff_size(data: bytes) -> Size:
    """Return width and height of the first page.

    Raises:
        ImageReject: Cut off, without width or height, of another compression, with tags that promise more bytes than
            the file has, or with tiles far larger than the image.
    """
    if len(data) < 16:
        raise cut_off("TIFF", data)
    order = "<" if data[:2] == b"II" else ">"
    entries = _first_directory(data, order)
    width, height = (_number(data, order, entries, tag) for tag in (_WIDTH, _LENGTH))
    if width is None or height is None:
        raise damaged("The TIFF's first page has no width or no height.")
    compression = _number(data, order, entries, _COMPRESSION) if _COMPRESSION in entries else 1
    if compression not in _COMPRESSIONS:
        expected = ", ".join(map(str, _COMPRESSIONS))
        raise damaged(f"Expected one of the TIFF compressions {expected}, got {compression}.")
    for tag, side in ((_TILE_WIDTH, width), (_TILE_LENGTH, height)):
        tile = _number(data, order, entries, tag)
        if tile is not None and tile > side + _MAX_TILE:
            raise damaged(f"The TIFF has tiles {tile} pixels long for a side of {side} pixels.")
    for starts_tag, lengths_tag in _PIECES:
        starts, lengths = (_numbers(data, order, entries.get(tag)) for tag in (starts_tag, lengths_tag))
        number = min(len(starts), len(lengths))
        if np.any(starts[:number] > len(data)) or np.any(lengths[:number] > len(data) - starts[:number]):
            raise cut_off("TIFF", data)
    return width, height


def _first_directory(data: bytes, order: str) -> dict[int, _Entry]:
    if data[2:4] in (b"\x2b\x00", b"\x00\x2b"):  # BigTIFF
        (place,) = struct.unpack_from(order + "Q", data, 8)
        head, entry, inline = order + "Q", order + "HHQQ", 12
    else:
        (place,) = struct.unpack_from(order + "I", data, 4)
        head, entry, inline = order + "H", order + "HHII", 8
    if place + struct.calcsize(head) > len(data):
        raise cut_off("TIFF", data)
    (num_entries,) = struct.unpack_from(head, data, place)
    if not 1 <= num_entries <= _MAX_ENTRIES:
        raise damaged(f"Expected 1 to {_MAX_ENTRIES} tags of the TIFF's first page, got {num_entries}.")
    place += struct.calcsize(head)
    length = struct.calcsize(entry)
    if place + num_entries * length > len(data):
        raise cut_off("TIFF", data)
    entries: dict[int, _Entry] = {}
    num_bytes = 0
    for start in range(place, place + num_entries * length, length):
        tag, kind, count, value = struct.unpack_from(entry, data, start)
        size = _BYTES.get(kind, 0) * count
        num_bytes += size
        offset = start + inline if size <= length - inline else value
        entries.setdefault(tag, _Entry(kind, count, offset))  # libtiff, too, takes the first of several
        if size and offset + size > len(data):
            raise cut_off("TIFF", data)
    if num_bytes > len(data):  # libtiff copies what each tag points to
        raise damaged(f"The tags of the TIFF's first page promise {num_bytes} bytes, the file has {len(data)}.")
    return entries


def _number(data: bytes, order: str, entries: dict[int, _Entry], tag: int) -> int | None:
    numbers = _numbers(data, order, entries.get(tag))
    return int(numbers[0]) if len(numbers) == 1 else None


def _numbers(data: bytes, order: str, entry: _Entry | None) -> NDArray[np.uint64]:
    """Return a tag's values; none where it is missing or no unsigned integer."""
    if entry is None or entry.kind not in _UNSIGNED:
        return np.empty(0, np.uint64)
    values = np.frombuffer(data, order + _UNSIGNED[entry.kind], entry.count, entry.offset)
    return values.astype(np.uint64)
