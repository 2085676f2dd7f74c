"""TIFF files for tests: what Pillow and OpenCV write, and files made by hand of whatever tags."""

from __future__ import annotations

import struct
from functools import cache

import cv2
import numpy as np
from PIL import Image

from tests.samples import crop, encode

SHORT, LONG, LONG8 = 3, 4, 16
_LETTERS = {SHORT: "H", LONG: "I", LONG8: "Q"}

Tags = dict[int, tuple[int, list[int]]]


def tiff(tags: Tags, data: bytes = b"", order: str = "<", big: bool = False, num_entries: int | None = None) -> bytes:
    """Return a TIFF of one directory: a header, the pixels' data, the tags' values, the directory."""
    offset = "Q" if big else "I"
    head = 16 if big else 8
    body, entries = bytearray(data), b""
    for tag, (kind, numbers) in sorted(tags.items()):
        values = struct.pack(f"{order}{len(numbers)}{_LETTERS[kind]}", *numbers)
        if len(values) > struct.calcsize(offset):
            place = head + len(body)
            body += values
            values = struct.pack(order + offset, place)
        entries += struct.pack(order + "HH" + offset, tag, kind, len(numbers)) + values.ljust(
            len(values) + -len(values) % (head // 2), b"\0"
        )
    mark = b"II" if order == "<" else b"MM"
    place = head + len(body)
    start = struct.pack(order + "HHHQ", 43, 8, 0, place) if big else struct.pack(order + "HI", 42, place)
    count = struct.pack(
        order + ("Q" if big else "H"), len(entries) // (20 if big else 12) if num_entries is None else num_entries
    )
    return mark + start + bytes(body) + count + entries + bytes(head // 2)


def grey(width: int, height: int, order: str = "<", big: bool = False, **changes: tuple[int, list[int]]) -> bytes:
    """Return an uncompressed grey image of one strip; ``changes`` are tags, named as ``t256``."""
    data = bytes(range(256)) * (width * height // 256 + 1)
    head = 16 if big else 8
    tags: Tags = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8]),
        259: (SHORT, [1]),
        262: (SHORT, [1]),
        273: (LONG, [head]),
        277: (SHORT, [1]),
        278: (LONG, [height]),
        279: (LONG, [width * height]),
    }
    tags.update({int(name[1:]): value for name, value in changes.items()})
    return tiff({tag: value for tag, value in tags.items() if value[1]}, data[: width * height], order, big)


def tiled(width: int, height: int, side: int) -> bytes:
    """Return an uncompressed grey image in square tiles."""
    across, down = -(-width // side), -(-height // side)
    tiles = [bytes([40 * number % 256]) * side**2 for number in range(across * down)]
    starts = [8 + number * side**2 for number in range(len(tiles))]
    return tiff(
        {
            256: (LONG, [width]),
            257: (LONG, [height]),
            258: (SHORT, [8]),
            259: (SHORT, [1]),
            262: (SHORT, [1]),
            277: (SHORT, [1]),
            322: (LONG, [side]),
            323: (LONG, [side]),
            324: (LONG, starts),
            325: (LONG, [side**2] * len(tiles)),
        },
        b"".join(tiles),
    )


@cache
def tiff_images() -> dict[str, bytes]:
    """Return TIFFs that decode, by file name."""
    image = crop(7, 60, 80)
    picture = Image.fromarray(image)
    deep = cv2.cvtColor(image, cv2.COLOR_RGB2BGR).astype(np.uint16) * 257
    modes = {f"{mode}.tiff": encode(picture.convert(mode), "TIFF") for mode in ("1", "L", "LA", "P", "RGBA", "CMYK")}
    compressions = {
        f"{name}.tiff": encode(picture, "TIFF", compression=name)
        for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    }
    return {
        "plain.tiff": encode(image, "TIFF"),
        "group4.tiff": encode(picture.convert("1"), "TIFF", compression="group4"),
        "16-bit.tiff": cv2.imencode(".tiff", deep)[1].tobytes(),
        "16-bit-alpha.tiff": cv2.imencode(".tiff", np.dstack([deep, deep[:, :, 0]]))[1].tobytes(),
        "two-pages.tiff": encode(picture, "TIFF", save_all=True, append_images=[Image.new("RGB", (500, 500))]),
        "big.tiff": encode(picture, "TIFF", big_tiff=True),
        "big-by-hand.tiff": grey(20, 10, big=True),
        "big-endian.tiff": grey(20, 10, order=">"),
        "big-big-endian.tiff": grey(20, 10, order=">", big=True),
        "tiles.tiff": tiled(100, 70, 32),
        "upside-down.tiff": encode(picture, "TIFF", tiffinfo={274: 3}),
        **modes,
        **compressions,
    }


@cache
def bad_tiffs() -> dict[str, tuple[bytes, str]]:
    """Return TIFFs that must become rejects where TIFF is allowed, by name: bytes and code."""
    image = crop(9, 60, 80)
    strips = encode(image, "TIFF", compression="tiff_lzw")
    written = cv2.imencode(".tiff", image)[1].tobytes()  # its directory is at the end
    return {
        "magic-only.tiff": (b"II*\0", "truncated"),
        "cut-strips.tiff": (strips[:-500], "truncated"),
        "cut-directory.tiff": (written[:-100], "truncated"),
        "directory-beyond.tiff": (b"II*\0" + struct.pack("<I", 2**31) + bytes(100), "truncated"),
        "strip-beyond.tiff": (grey(20, 10, t273=(LONG, [2**32 - 1])), "truncated"),
        "strip-too-long.tiff": (grey(20, 10, t279=(LONG, [2**32 - 1])), "truncated"),
        "no-tags.tiff": (tiff({}, bytes(8)), "undecodable"),
        "too-many-tags.tiff": (tiff({256: (LONG, [8])}, num_entries=4097), "undecodable"),
        "no-width.tiff": (grey(20, 10, t256=(LONG, [])), "undecodable"),
        "no-height.tiff": (grey(0, 10), "undecodable"),
        "two-widths.tiff": (grey(20, 10, t256=(LONG, [20, 20])), "undecodable"),
        "bomb.tiff": (grey(20, 10, t256=(LONG, [100_000]), t257=(LONG, [100_000])), "too_large"),
        "long.tiff": (grey(20, 10, t256=(LONG, [2_000_000])), "too_large"),
        "huge-tile.tiff": (tiled(16, 16, 4224), "undecodable"),
        "float.tiff": (cv2.imencode(".tiff", image.astype(np.float32))[1].tobytes(), "undecodable"),
        "32-bit.tiff": (encode(Image.fromarray(image).convert("I"), "TIFF"), "undecodable"),
        "unknown-compression.tiff": (grey(20, 10, t259=(SHORT, [60_000])), "undecodable"),
        "old-jpeg.tiff": (grey(20, 10, t259=(SHORT, [6])), "undecodable"),
        "two-compressions.tiff": (grey(20, 10, t259=(SHORT, [1, 1])), "undecodable"),
        "copied-tags.tiff": (_copied_tags(), "undecodable"),
    }


def _copied_tags(num_tags: int = 100) -> bytes:
    """Return an image with tags that all point to the same bytes, which libtiff would copy for each."""
    tags = {f"t{60_000 + number}": (LONG, [0]) for number in range(num_tags)}
    data = grey(200, 250, **tags)
    return data.replace(struct.pack("<HII", LONG, 1, 0), struct.pack("<HII", LONG, 12_000, 8))
