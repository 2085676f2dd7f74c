"""Which JPEGs a GPU decodes to the pixels that the CPU would give, as far as their headers tell.

nvJPEG takes all components for YCbCr, doesn't look at EXIF, and decodes baseline JPEGs by hardware. So it gets those
that nearly every camera and tool writes, and the CPU gets whatever is odd.
"""

from __future__ import annotations

import struct

from pipeline.headers import FRAME_HEADERS, SOS, segments
from pipeline.images import Limits, read_header

_BASELINE, _APP1, _APP14 = 0xC0, 0xE1, 0xEE
_EXIF, _ADOBE = b"Exif\0\0", b"Adobe"
#: Largest image (pixels): decoded and resized in float32, it takes some 20 bytes a pixel of the device's memory.
_MOST_PIXELS = 2**26
_ORIENTATION, _SHORT = 0x0112, 3


def size_for_gpu(data: bytes, limits: Limits) -> tuple[int, int] | None:
    """Return height and width of an image that a GPU can decode, None for one that the CPU is to decode.

    Args:
        data: An image file.
        limits: What a single image may cost.

    Raises:
        ImageReject: As `pipeline.images.read_header`: no decoder is to get this image.
    """
    header = read_header(data, limits)
    if header.format != "JPEG" or header.width * header.height > _MOST_PIXELS or not _is_plain(data):
        return None
    return header.height, header.width


def _is_plain(data: bytes) -> bool:
    """Return whether a JPEG has one baseline scan of YCbCr, 8 bits, and stands upright."""
    has_frame = False
    for marker, place in segments(data, 2):
        if marker == SOS:
            return has_frame and data.find(b"\xff\xda", place) < 0
        segment = data[place + 2 : place + int.from_bytes(data[place : place + 2], "big")]
        if marker in FRAME_HEADERS:
            has_frame = marker == _BASELINE and _is_ycbcr(segment)
        elif marker == _APP1 and segment.startswith(_EXIF):
            if not _is_upright(segment[len(_EXIF) :]):
                return False
        elif marker == _APP14 and segment.startswith(_ADOBE) and segment[11:12] != b"\1":
            return False  # RGB or CMYK; by 1 Adobe means YCbCr
    return False


def _is_ycbcr(frame: bytes) -> bool:
    """Return whether a frame header (ITU-T T.81, B.2.2) has the components of JFIF, in a usual subsampling."""
    if len(frame) != 15 or frame[0] != 8 or frame[5] != 3:
        return False
    names, factors = frame[6::3], frame[7::3]
    return names == b"\1\2\3" and factors[0] in b"\x11\x12\x21\x22" and factors[1:] == b"\x11\x11"


def _is_upright(exif: bytes) -> bool:
    """Return whether EXIF data (a TIFF's first directory) surely has no orientation, or that of upright images."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    try:
        if order is None:
            return False
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if tag == _ORIENTATION:
                return (kind, number, value) == (_SHORT, 1, 1)
    except struct.error:  # it ends early
        return False
    return True
