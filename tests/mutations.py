"""Damaged image files: what a broken disk, a broken program or an ill-meaning person makes of good ones."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from functools import cache
from random import Random

from pipeline.images import sniff
from tests import bombs, samples, tiffs

_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    4096,
    16_383,
    32_767,
    32_768,
    65_535,
    2**20,
    2**24,
    2**31 - 1,
    2**32 - 1,
)

#: Place, length in bytes and order of a number in a header.
Field = tuple[int, int, str]


@cache
def corpus() -> tuple[bytes, ...]:
    """Return the files that mutations begin with: all formats and kinds, good and bad."""
    good = [*samples.odd_images().values(), *tiffs.tiff_images().values()]
    bad = [data for data, _ in (*samples.bad_images().values(), *tiffs.bad_tiffs().values()) if len(data) < 100_000]
    hostile = [bombs.jpeg_of_scans(20), bombs.gif_of_clear_codes(2_000), bombs.webp_canvas(300, 200)]
    return (*good, *good, *good, *bad, *hostile)


def mutated(seed: int, number: int) -> bytes:
    """Return one damaged file: the same bytes for the same two numbers."""
    random = Random(f"{seed}-{number}")
    data = random.choice(random.choice(_by_format()))
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        data = random.choice(_MUTATIONS)(random, data)
    if data.startswith(b"\x89PNG") and random.random() < 0.7:  # with a wrong checksum, libpng would look no further
        data = _with_checksums(data)
    return data


@cache
def _by_format() -> tuple[tuple[bytes, ...], ...]:
    groups: dict[str, list[bytes]] = {}
    for data in corpus():
        groups.setdefault(sniff(data) or "other", []).append(data)
    del groups["other"]
    return tuple(map(tuple, groups.values()))


def _flip_bits(random: Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(random.choice((1, 1, 4, 16))):
        if damaged:
            damaged[_place(random, data)] ^= 1 << random.randrange(8)
    return bytes(damaged)


def _overwrite(random: Random, data: bytes) -> bytes:
    place = _place(random, data)
    new = random.choice((b"\0", b"\xff", random.randbytes(1))) * random.choice((1, 2, 4, 64))
    return data[:place] + new + data[place + len(new) :]


def _delete(random: Random, data: bytes) -> bytes:
    place = _place(random, data)
    return data[:place] + data[place + random.choice((1, 2, 16, 500)) :]


def _insert(random: Random, data: bytes) -> bytes:
    place = _place(random, data)
    return data[:place] + random.randbytes(random.choice((1, 2, 16, 500))) + data[place:]


def _repeat(random: Random, data: bytes) -> bytes:
    place = _place(random, data)
    return data[:place] + data[place : place + random.choice((1, 16, 500))] * random.choice((2, 3, 50)) + data[place:]


def _truncate(random: Random, data: bytes) -> bytes:
    return data[: _place(random, data)]


def _splice(random: Random, data: bytes) -> bytes:
    other = random.choice(corpus())
    place = random.random()
    return data[: int(place * len(data))] + other[int(place * len(other)) :]


def _join(random: Random, data: bytes) -> bytes:
    return data + random.choice(corpus())


def _edit_field(random: Random, data: bytes) -> bytes:
    """Write a number into a field of the header."""
    image_format = sniff(data)
    fields = _FIELDS[image_format](data) if image_format else []
    fields = [field for field in fields if field[0] + field[1] <= len(data)]
    if not fields:
        return _flip_bits(random, data)
    place, length, order = random.choice(fields)
    number = random.choice((*_NUMBERS, random.getrandbits(32))) % 256**length
    return data[:place] + number.to_bytes(length, order) + data[place + length :]


def _damage_rows(random: Random, data: bytes) -> bytes:
    """Flip bits in a PNG's rows, within a whole zlib stream."""
    chunks = [
        (data[place + 4 : place + 8], data[place + 8 : place + 8 + length]) for place, length in _png_chunks(data)
    ]
    try:
        rows = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    except zlib.error:
        return _flip_bits(random, data)
    first = next(number for number, (kind, _) in enumerate(chunks) if kind == b"IDAT")
    others = [bombs.chunk(kind, body) for kind, body in chunks if kind != b"IDAT"]
    return data[:8] + b"".join(
        [*others[:first], bombs.chunk(b"IDAT", zlib.compress(_flip_bits(random, rows))), *others[first:]]
    )


_MUTATIONS: tuple[Callable[[Random, bytes], bytes], ...] = (
    _flip_bits,
    _overwrite,
    _delete,
    _insert,
    _repeat,
    _truncate,
    _splice,
    _join,
    *[_edit_field] * 8,
    _damage_rows,
)


def _place(random: Random, data: bytes) -> int:
    """Return a place in the file, in its first 200 bytes as often as not."""
    return random.randrange(max(1, min(len(data), random.choice((200, len(data))))))


def _jpeg_fields(data: bytes) -> list[Field]:
    segments = [match.end() for match in re.finditer(rb"\xff[\xc0-\xcf\xda-\xfe]", data[:4096])]
    exif = data.find(b"Exif\0\0")
    words = [(exif + 6 + place, 2, "little") for place in range(0, 40, 2)] if exif >= 0 else []
    return [(start + place, 2, "big") for start in segments for place in (0, 2, 3, 5, 7, 9)] + words


def _png_chunks(data: bytes) -> list[tuple[int, int]]:
    """Return place and length of each chunk."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((place, length))
        place += 12 + length
    return chunks


def _png_fields(data: bytes) -> list[Field]:
    header = [(16, 4, "big"), (20, 4, "big"), *((24 + place, 1, "big") for place in range(5))]
    return header * 3 + [(place + step, 4, "big") for place, _ in _png_chunks(data) for step in (0, 4, 8, 12, 16, 20)]


def _with_checksums(data: bytes) -> bytes:
    damaged = bytearray(data)
    for place, length in _png_chunks(data):
        if place + 12 + length <= len(data):
            checksum = zlib.crc32(data[place + 4 : place + 8 + length])
            struct.pack_into(">I", damaged, place + 8 + length, checksum)
    return bytes(damaged)


def _gif_fields(data: bytes) -> list[Field]:
    frame = data.find(b"\x2c", 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0))
    frame_fields = [(frame + place, 2, "little") for place in (1, 3, 5, 7)] + [(frame + 9, 1, "little")]
    return [(6, 2, "little"), (8, 2, "little"), (10, 1, "little"), (11, 1, "little"), *frame_fields]


def _bmp_fields(_: bytes) -> list[Field]:
    return [(place, 4, "little") for place in (10, 14, 18, 22, 30, 34, 46, 50)] + [(28, 2, "little")]


def _webp_fields(_: bytes) -> list[Field]:
    return [(place, 4, "little") for place in (4, 16, 20, 24, 27, 34)] + [(26, 2, "little"), (28, 2, "little")]


def _tiff_fields(data: bytes) -> list[Field]:
    order = "little" if data[:1] == b"I" else "big"
    start = int.from_bytes(data[4:8], order)
    entries = [start + 2 + 12 * number for number in range(16)]
    fields = [(entry + place, length, order) for entry in entries for place, length in ((0, 2), (2, 2), (4, 4), (8, 4))]
    return [(4, 4, order), (start, 2, order), *fields, *((entry + 8, 2, order) for entry in entries)]


_FIELDS: dict[str, Callable[[bytes], list[Field]]] = {
    "JPEG": _jpeg_fields,
    "PNG": _png_fields,
    "GIF": _gif_fields,
    "BMP": _bmp_fields,
    "WebP": _webp_fields,
    "TIFF": _tiff_fields,
}
