"""Image files of few bytes or pixels that cost a decoder much time or memory."""

from __future__ import annotations

import struct
import zlib

from tests import samples


def jpeg_of_scans(num_scans: int) -> bytes:
    """Return a progressive JPEG, its last scan repeated."""
    data = samples.encode(samples.crop(1, 64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (num_scans - data.count(b"\xff\xda")) + b"\xff\xd9"


def jpeg_with(segments: bytes) -> bytes:
    """Return a JPEG with something behind its first marker."""
    data = samples.encode(samples.crop(1, 64, 64), "JPEG")
    return data[:2] + segments + data[2:]


def gif_of_clear_codes(num_bytes: int, side: int = 4) -> bytes:
    """Return a GIF whose data tell the decoder to set up its table again and again."""
    block = bytes(int(("001" * 8)[i : i + 8][::-1], 2) for i in (0, 8, 16)) * 85  # code 4, in 3 bits
    screen = struct.pack("<HHBBB", side, side, 0x81, 0, 0) + bytes(12)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02"
    return b"GIF89a" + screen + frame + (b"\xff" + block) * (num_bytes // 256) + b"\0;"


def gif_with_comment(num_bytes: int) -> bytes:
    """Return a GIF with a comment in sub-blocks."""
    data = samples.encode(samples.crop(1, 64, 64), "GIF")
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + b"\x21\xfe" + (b"\xff" + b"a" * 255) * (num_bytes // 256) + b"\0" + data[start:]


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, side: int = 8) -> bytes:
    """Return a black RGB PNG with some more chunks before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes((3 * side + 1) * side)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def zeros(num_bytes: int) -> bytes:
    """Return so many zeros, compressed to a thousandth."""
    compressor = zlib.compressobj(9)
    return b"".join(compressor.compress(bytes(2**20)) for _ in range(num_bytes >> 20)) + compressor.flush()


def webp_canvas(width: int, height: int) -> bytes:
    """Return a WebP whose extended header promises a canvas."""
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4)
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body
