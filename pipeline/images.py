"""Bytes of an image file to uint8 pixels: pure functions that accept only whole, recognised, bounded images.

OpenCV decodes (the reference preprocessing of the first backbone is defined by ``cv2.imread``, and nothing else turns
grey, CMYK, 16-bit, alpha and EXIF-rotated files into exactly its pixels). Pillow's plugins read the header first,
because OpenCV gives no way to look at width and height before it allocates.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from pipeline.errors import ImageReject, RejectCode
from pipeline.failpoints import reach

Pixels = NDArray[np.uint8]

#: Pillow's own limit for a decompression bomb, 2 x 89,478,485 pixels (PIL.Image.MAX_IMAGE_PIXELS).
MAX_IMAGE_PIXELS = 178_956_970
#: Longest file that is read: larger than any photograph, small enough for a worker's memory.
MAX_IMAGE_BYTES = 256 * 2**20

# The plugin classes are called directly: PIL.Image.open adds a limit that is a process-wide global.
_HEADER_READERS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
ACCEPTED_FORMATS = ("JPEG", "PNG", "WebP", "BMP", "GIF")
_OPENCV_NO_MEMORY = -4  # cv::Error::StsNoMem
_GIF_TRAILER = b"\x3b"

cv2.setNumThreads(1)  # one decode task is one core's work
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a reject says it better, with the URI


@dataclass(frozen=True, slots=True)
class Limits:
    """What a single image may cost.

    Args:
        max_pixels: Largest width x height, from the header, before anything is decoded.
        max_bytes: Longest file that is read.
    """

    max_pixels: int = MAX_IMAGE_PIXELS
    max_bytes: int = MAX_IMAGE_BYTES


def sniff(data: bytes) -> str | None:
    """Return the format that the first bytes show, one of `ACCEPTED_FORMATS`, or None."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:2] == b"BM":
        return "BMP"
    return None


def decode(data: bytes, limits: Limits | None = None) -> Pixels:
    """Decode one image as ``cv2.imread(path, cv2.IMREAD_COLOR)`` does: EXIF orientation applied, first frame only.

    Returns:
        uint8 array of shape (H, W, 3), BGR.

    Raises:
        ImageReject: The bytes are empty, no accepted format, cut off, over the limits, or can't be decoded.
    """
    limits = limits or Limits()
    reach("decode", data)
    image_format = _check_size_and_format(data, limits)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if error.code == _OPENCV_NO_MEMORY:
            raise MemoryError(f"OpenCV found no memory for this {image_format}: {error.err}") from None
        raise _reject(RejectCode.UNDECODABLE, f"OpenCV can't decode this {image_format}: {error.err}") from None
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        if image_format == "GIF" and not data.endswith(_GIF_TRAILER):
            raise _reject(RejectCode.TRUNCATED, f"The GIF ends before its trailer, after {len(data)} bytes.")
        raise _reject(RejectCode.UNDECODABLE, f"OpenCV can't decode this {image_format}: its data is damaged.")
    return cast(Pixels, pixels)


def _check_size_and_format(data: bytes, limits: Limits) -> str:
    if not data:
        raise _reject(RejectCode.EMPTY, "The file has 0 bytes.")
    if len(data) > limits.max_bytes:
        raise _reject(RejectCode.TOO_LARGE, f"The file is longer than {limits.max_bytes} bytes (--max-image-bytes).")
    image_format = sniff(data)
    if image_format is None:
        raise _reject(
            RejectCode.UNSUPPORTED,
            f"Expected {', '.join(ACCEPTED_FORMATS)}; the file starts with bytes {data[:8].hex(' ')}.",
        )
    if _is_cut_off(image_format, data):
        raise _reject(RejectCode.TRUNCATED, f"The {image_format} ends before its end marker, after {len(data)} bytes.")
    width, height = _header_size(image_format, data)
    if width < 1 or height < 1:
        raise _reject(RejectCode.UNDECODABLE, f"The {image_format} header says {width} x {height} pixels.")
    if width * height > limits.max_pixels:
        raise _reject(
            RejectCode.TOO_LARGE,
            f"The header says {width} x {height} pixels, more than {limits.max_pixels} (--max-image-pixels).",
        )
    return image_format


def _header_size(image_format: str, data: bytes) -> tuple[int, int]:
    if image_format == "PNG":  # at a fixed place (PNG specification, 11.2.2); Pillow would choke on odd metadata first
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata that doesn't concern pixels
            width, height = _HEADER_READERS[image_format](io.BytesIO(data)).size
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise most built-in exceptions on damaged headers
        raise _reject(RejectCode.UNDECODABLE, f"The {image_format} header can't be read: {error}") from None
    return width, height


def _is_cut_off(image_format: str, data: bytes) -> bool:
    """Return whether the file ends early; decoders of some versions fill the rest with grey and say nothing."""
    if image_format == "JPEG":
        return data.rfind(b"\xff\xd9") < _jpeg_scan_start(data)
    if image_format == "PNG":
        return not _png_is_whole(data)
    if image_format == "WebP":
        return len(data) < 12 or len(data) < 8 + int.from_bytes(data[4:8], "little")
    if image_format == "BMP":
        return _bmp_is_short(data)
    return False  # GIF: files with bytes after the trailer are common, so only a failed decode tells


def _jpeg_scan_start(data: bytes) -> int:
    """Return the offset of the first scan (ITU-T T.81, B.1.1.4), past any thumbnail in the metadata."""
    position, end = 2, len(data)
    while position + 4 <= end:
        if data[position] != 0xFF:  # stray bytes between segments, which decoders skip
            position = data.find(b"\xff", position)
            if position < 0:
                return end
            continue
        marker = data[position + 1]
        if marker == 0xDA:
            return position
        if marker in (0xFF, 0x00):  # fill byte, or no marker
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return end


def _png_is_whole(data: bytes) -> bool:
    """Return whether the chunks (PNG specification, 5.3) reach IEND."""
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            return True
        position += 12 + length
    return False


def _bmp_is_short(data: bytes) -> bool:
    """Return whether an uncompressed bitmap lacks rows (BITMAPINFOHEADER layout)."""
    if len(data) < 34:
        return True
    offset, header_length, width, height = struct.unpack_from("<IIii", data, 10)
    if header_length < 40:
        return False
    bits, compression = struct.unpack_from("<HI", data, 28)
    if compression not in (0, 3):  # run-length encoded or embedded: the decoder knows
        return False
    return bool(len(data) < offset + (abs(width) * bits + 31) // 32 * 4 * abs(height))


def _reject(code: RejectCode, message: str) -> ImageReject:
    return ImageReject("decode", code, message)
