"""Bytes of an image file to uint8 pixels: pure functions that accept only whole, recognised, bounded images.

OpenCV decodes (the reference preprocessing of the first backbone is defined by ``cv2.imread``, and nothing else turns
grey, CMYK, 16-bit, alpha and EXIF-rotated files into exactly its pixels). `pipeline.headers` and `pipeline.tiff` read
the header first, because OpenCV gives no way to look at width and height before it allocates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ImageReject, RejectCode
from pipeline.failpoints import reach
from pipeline.headers import Size, bmp_size, cut_off, damaged, gif_size, jpeg_size, png_size, webp_size
from pipeline.tiff import SIGNATURES, tiff_size

Pixels = NDArray[np.uint8]

#: Pillow's own limit for a decompression bomb, 2 x 89,478,485 pixels (PIL.Image.MAX_IMAGE_PIXELS).
MAX_IMAGE_PIXELS = 178_956_970
#: Longest file that is read: larger than any photograph, small enough for a worker's memory.
MAX_IMAGE_BYTES = 256 * 2**20
# What OpenCV decodes at all (CV_IO_MAX_IMAGE_PIXELS, modules/imgcodecs/src/loadsave.cpp).
_MOST_PIXELS = 2**30
# Longest side; libpng has the smallest limit of all decoders (PNG_USER_WIDTH_MAX).
_MAX_SIDE = 1_000_000

# Formats that are decoded, and what reads width and height of each. TIFF only where `Limits` allow it.
_SIZE_READERS: dict[str, Callable[[bytes], Size]] = {
    "JPEG": jpeg_size,
    "PNG": png_size,
    "WebP": webp_size,
    "BMP": bmp_size,
    "GIF": gif_size,
    "TIFF": tiff_size,
}
# The most memory that decoding a pixel takes in OpenCV 5.0, measured on 16 Mpx images with RLIMIT_DATA, and some more:
# the pixels and their turned copy (6), and before them a progressive CMYK's coefficients (11); an animated PNG's three
# canvases of 16 bits and their conversion (35); an animated WebP's canvases (20); a GIF's canvas, codes and the area to
# restore (12); a TIFF's strip of 16 bits, in RGBA, and the pixels (15; a progressive JPEG in it takes 22).
_BYTES_PER_PIXEL = {"JPEG": 14, "PNG": 42, "WebP": 24, "BMP": 8, "GIF": 14, "TIFF": 26}
ACCEPTED_FORMATS = ("JPEG", "PNG", "WebP", "BMP", "GIF")
_OPENCV_NO_MEMORY = -4  # cv::Error::StsNoMem
_GIF_TRAILER = b"\x3b"

cv2.setNumThreads(1)  # one decode task is one core's work
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a reject says it better, with the URI


@dataclass(frozen=True, slots=True)
class Limits:
    """What a single image may cost, and what it may be.

    Args:
        max_pixels: Largest width x height, from the header, before anything is decoded.
        max_bytes: Longest file that is read.
        allow_tiff: Whether TIFF is decoded, too. Its decoder is by far the largest, and has had most vulnerabilities.
    """

    max_pixels: int = MAX_IMAGE_PIXELS
    max_bytes: int = MAX_IMAGE_BYTES
    allow_tiff: bool = False


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an image before it is decoded.

    Args:
        format: One of `ACCEPTED_FORMATS`, or TIFF.
        width: In pixels, before any rotation.
        height: Likewise.
        num_bytes: Length of the file.
    """

    format: str
    width: int
    height: int
    num_bytes: int

    @property
    def says(self) -> str:
        """The size in words."""
        return f"{self.width} x {self.height}"

    @property
    def decoding_bytes(self) -> int:
        """The most memory that decoding may take, besides the bytes given, of which decoders make up to two copies."""
        return _BYTES_PER_PIXEL[self.format] * self.width * self.height + 2 * self.num_bytes


def sniff(data: bytes) -> str | None:
    """Return the format that the first bytes show, one of `ACCEPTED_FORMATS` or TIFF, or None."""
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
    if data[:4] in SIGNATURES:
        return "TIFF"
    return None


def decode(data: bytes, limits: Limits | None = None) -> Pixels:
    """Decode one image as ``cv2.imread(path, cv2.IMREAD_COLOR)`` does: EXIF orientation applied, first frame only.

    Returns:
        uint8 array of shape (H, W, 3), BGR.

    Raises:
        ImageReject: The bytes are empty, no accepted format, cut off, over the limits, or can't be decoded.
        MemoryError: There is not the memory to tell.
    """
    limits = limits or Limits()
    reach("decode", data)
    header = read_header(data, limits)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # what is no cv::Exception, such as std::bad_alloc, comes without a code
        if getattr(error, "code", _OPENCV_NO_MEMORY) == _OPENCV_NO_MEMORY:
            raise MemoryError(f"OpenCV found no memory for this {header.format}: {error}") from None
        raise damaged(f"OpenCV can't decode this {header.format}: {error.err}") from None
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        np.empty(header.decoding_bytes, np.uint8)  # for want of memory, too, some decoders just return nothing
        if header.format == "GIF" and not data.endswith(_GIF_TRAILER):
            raise cut_off("GIF", data)
        raise damaged(f"OpenCV can't decode this {header.format}: its data is damaged, or of a kind it doesn't know.")
    height, width = pixels.shape[:2]
    if (width, height) not in ((header.width, header.height), (header.height, header.width)):
        raise damaged(f"The {header.format} has {width} x {height} pixels, its header says {header.says}.")
    return cast(Pixels, pixels)


def read_header(data: bytes, limits: Limits) -> Header:
    """Look at an image before it is decoded.

    Raises:
        ImageReject: The bytes are empty, no accepted format, cut off, over the limits, or have no sound header.
    """
    image_format = _accepted_format(data, limits)
    header = Header(image_format, *_SIZE_READERS[image_format](data), num_bytes=len(data))
    says = f"The {image_format} header says {header.says} pixels"
    num_pixels = header.width * header.height
    if header.width < 1 or header.height < 1:
        raise damaged(f"{says}.")
    if num_pixels > limits.max_pixels:
        raise _reject(RejectCode.TOO_LARGE, f"{says}, more than {limits.max_pixels} (--max-image-pixels).")
    if max(header.width, header.height) > _MAX_SIDE or num_pixels > _MOST_PIXELS:
        most = f"sides up to {_MAX_SIDE} and {_MOST_PIXELS} in all"
        raise _reject(RejectCode.TOO_LARGE, f"{says}; OpenCV decodes {most}.")
    return header


def _accepted_format(data: bytes, limits: Limits) -> str:
    if not data:
        raise _reject(RejectCode.EMPTY, "The file has 0 bytes.")
    if len(data) > limits.max_bytes:
        raise _reject(RejectCode.TOO_LARGE, f"The file is longer than {limits.max_bytes} bytes (--max-image-bytes).")
    image_format = sniff(data)
    if image_format == "TIFF" and not limits.allow_tiff:
        raise _reject(
            RejectCode.UNSUPPORTED,
            f"Expected {', '.join(ACCEPTED_FORMATS)}; the file is a TIFF, which needs --allow-tiff.",
        )
    if image_format is None:
        raise _reject(
            RejectCode.UNSUPPORTED,
            f"Expected {', '.join(ACCEPTED_FORMATS)}; the file starts with bytes {data[:8].hex(' ')}.",
        )
    return image_format


def _reject(code: RejectCode, message: str) -> ImageReject:
    return ImageReject("decode", code, message)
