"""Width and height from the header of an image file, and whether the file is whole, before anything is decoded.

The parsers are our own, because they meet hostile bytes first: each takes time and memory in proportion to the file at
most. Pillow's plugins keep every metadata segment and join comments piece by piece: a JPEG of 16 MB took 5 s and 290 MB
before its width was known. A parser goes by the marker or chunk that the decoder itself will go by.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import takewhile

from pipeline.errors import ImageReject, RejectCode

Size = tuple[int, int]

#: Scans in one JPEG. Encoders write 10, optimisers a few more; each scan, of 200 bytes if it likes, costs a pass over
#: all pixels. libtiff stops at as many (LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER, tif_jpeg.c).
MAX_SCANS = 100
#: Segments of a JPEG, and chunks of a PNG besides its pixels'; cameras write dozens. OpenCV keeps each palette of a PNG
#: (0.4 s for each MB), and libjpeg lists each APP1 segment.
_MAX_SEGMENTS = 65_536
#: Compressed bytes that a file may have beyond those of its pixels. Without a bound, libpng inflates whatever follows
#: the last row (2 s for each MB), and OpenCV's GIF decoder sets up its table anew at each clear code (8 s for each MB).
_SPARE_BYTES = 65_536

SOS, EOI = 0xDA, 0xD9
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# A marker with a segment: no stuffed or fill byte, and neither TEM nor RST0 to RST7, which have no length.
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def jpeg_size(data: bytes) -> Size:
    """Return width and height of the frame header that libjpeg takes (ITU-T T.81, annex B).

    Raises:
        ImageReject: Cut off, without a frame header before its pixels, or with more than `MAX_SCANS` scans.
    """
    size: Size | None = None
    scan = len(data)
    for marker, position in segments(data, 2):
        if marker == SOS:
            scan = position
            break
        if marker == EOI:
            raise damaged("The JPEG ends before its pixels.")
        if marker in FRAME_HEADERS and position + 7 <= len(data):
            if size is not None:
                raise damaged("The JPEG has two frame headers.")
            height, width = struct.unpack_from(">HH", data, position + 3)
            size = (width, height)
    if data.rfind(b"\xff\xd9") < scan:  # in the metadata, an end marker is a thumbnail's
        raise cut_off("JPEG", data)
    if size is None:
        raise damaged("The JPEG has no frame header before its pixels.")
    # Fewer pairs of such bytes can't be more scans; as many there may be in what follows the image.
    if data.count(b"\xff\xda", scan) >= MAX_SCANS and _num_scans(data, scan - 2) > MAX_SCANS:
        raise damaged(f"The JPEG has more than {MAX_SCANS} scans, each of which costs a pass over all pixels.")
    return size


def segments(data: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Yield each segment's marker and the place of its length, stepping as libjpeg does (jdmarker.c, skip_variable).

    Raises:
        ImageReject: There are more than any camera writes.
    """
    for _ in range(_MAX_SEGMENTS):
        found = _SEGMENT.search(data, position)
        if found is None:
            return
        position = found.end()
        yield data[position - 1], position
        position += max(2, int.from_bytes(data[position : position + 2], "big"))
    raise damaged(f"The JPEG has more than {_MAX_SEGMENTS} segments.")


def _num_scans(data: bytes, position: int) -> int:
    markers = (marker for marker, _ in segments(data, position))
    return sum(marker == SOS for marker in takewhile(lambda marker: marker != EOI, markers))


def png_size(data: bytes) -> Size:
    """Return width and height of the IHDR chunk, which must be first (PNG specification, 5.3 and 11.2.2).

    Raises:
        ImageReject: Cut off before IEND, without IHDR, with too many chunks, or with far more compressed bytes than its
            pixels need.
    """
    position, num_bytes, num_chunks = 8, 0, 0
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            num_bytes += length
        elif kind != b"fdAT":
            num_chunks += 1
        position += 12 + length
    else:
        raise cut_off("PNG", data)
    if data[12:16] != b"IHDR":
        raise damaged("The PNG doesn't begin with IHDR.")
    if num_chunks > _MAX_SEGMENTS:
        raise damaged(f"The PNG has more than {_MAX_SEGMENTS} chunks besides its pixels'.")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    raw = (width * bits * _PNG_SAMPLES.get(colour, 4) // 8 + 2) * height
    _check_data("PNG", num_bytes, 2 * raw, width, height)  # Adam7's seven passes have at most twice the filter bytes
    return width, height


def webp_size(data: bytes) -> Size:
    """Return width and height of the canvas or of the only frame (WebP container specification; RFC 6386, 9.1).

    Raises:
        ImageReject: Cut off, or without one of the three headers.
    """
    if len(data) < 25 or len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise cut_off("WebP", data)
    kind = data[12:16]
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if len(data) < 30:
        raise cut_off("WebP", data)
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise damaged(f"Expected a WebP chunk VP8, VP8L or VP8X with its header, got {kind!r}.")


def gif_size(data: bytes) -> Size:
    """Return width and height of the logical screen (GIF89a, 18), which is what OpenCV allocates.

    Raises:
        ImageReject: Cut off before or in its first frame, or with far more compressed bytes than that frame needs.
    """
    if len(data) < 13:
        raise cut_off("GIF", data)
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[position : position + 1] == b"\x21":  # extensions
        position, _ = _skip_gif_blocks(data, position + 2)
    if position + 11 > len(data):
        raise cut_off("GIF", data)
    kind, _, _, frame_width, frame_height, flags = struct.unpack_from("<BHHHHB", data, position)
    if kind != 0x2C:
        raise damaged("The GIF has no frame.")
    position += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    _, num_bytes = _skip_gif_blocks(data, position)
    _check_data("GIF", num_bytes, 2 * frame_width * frame_height, frame_width, frame_height)
    return width, height


def _skip_gif_blocks(data: bytes, position: int) -> tuple[int, int]:
    """Return where a chain of data sub-blocks ends (GIF89a, 15), and how many bytes they hold."""
    num_bytes = 0
    while position < len(data):
        length = data[position]
        position += 1 + length
        if not length:
            return position, num_bytes
        num_bytes += length
    raise cut_off("GIF", data)


def bmp_size(data: bytes) -> Size:
    """Return width and height of BITMAPCOREHEADER, or of BITMAPINFOHEADER and its successors.

    Raises:
        ImageReject: Another header, or an uncompressed bitmap that lacks rows.
    """
    if len(data) < 26:
        raise cut_off("BMP", data)
    offset, header_length = struct.unpack_from("<II", data, 10)
    if header_length != 12 and header_length < 36:
        raise damaged(f"Expected a BMP header of 12 or at least 36 bytes, got {header_length}.")
    if header_length == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    elif len(data) < 34:
        raise cut_off("BMP", data)
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # negative: the first row is the top one
    # Of run-length encoded bitmaps only the decoder knows how long they are.
    if compression in (0, 3) and len(data) < offset + (max(width, 0) * bits + 31) // 32 * 4 * height:
        raise cut_off("BMP", data)
    return width, height


def cut_off(image_format: str, data: bytes) -> ImageReject:
    """Return the reject of a file that ends early."""
    message = f"The {image_format} ends before it is complete, after {len(data)} bytes."
    return ImageReject("decode", RejectCode.TRUNCATED, message)


def damaged(message: str) -> ImageReject:
    """Return the reject of a file whose header or data make no sense."""
    return ImageReject("decode", RejectCode.UNDECODABLE, message)


def _check_data(image_format: str, num_bytes: int, raw: int, width: int, height: int) -> None:
    if num_bytes > raw + _SPARE_BYTES:
        raise damaged(
            f"The {image_format} has {num_bytes} bytes of compressed data for {width} x {height} pixels, "
            f"more than {raw + _SPARE_BYTES}."
        )
