"""Images and weights for tests, made from the two photographs that scikit-learn bundles."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images

from pipeline.backbones.microsoftvision import MICROSOFTVISION, MICROSOFTVISION_RESNET50
from pipeline.backbones.weights import build_random

Pixels = NDArray[np.uint8]


@cache
def photographs() -> tuple[Pixels, ...]:
    """Return the two photographs: uint8 of shape (427, 640, 3), RGB."""
    return tuple(np.ascontiguousarray(image) for image in load_sample_images().images)


def crop(seed: int, height: int = 96, width: int = 128) -> Pixels:
    """Return a piece of a photograph: uint8 of shape (height, width, 3), RGB."""
    random = np.random.default_rng(seed)
    photograph = photographs()[seed % 2]
    top, left = (int(random.integers(0, photograph.shape[axis] - side)) for axis, side in ((0, height), (1, width)))
    return np.ascontiguousarray(photograph[top : top + height, left : left + width])


def encode(image: Pixels | Image.Image, image_format: str, **options: Any) -> bytes:
    """Return an image's bytes as Pillow writes them."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def jpeg(seed: int, height: int = 96, width: int = 128) -> bytes:
    """Return a small JPEG."""
    return encode(crop(seed, height, width), "JPEG", quality=90)


def write(path: Path, data: bytes) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_folder(root: Path, per_class: int, splits: tuple[str, ...] = ("train", "test")) -> Path:
    """Write a folder of JPEGs: splits, two classes (pieces of the two photographs)."""
    for s, split in enumerate(splits):
        for c, label in enumerate(("flower", "palace")):
            for i in range(per_class):
                write(root / split / label / f"{i:03d}.jpg", jpeg(2 * (1000 * s + i) + 1 - c))
    return root


def exif(orientation: int) -> bytes:
    """Return an EXIF block with an orientation (tag 0x112)."""
    block = Image.Exif()
    block[0x112] = orientation
    return block.tobytes()


@cache
def odd_images() -> dict[str, bytes]:
    """Return images of every accepted kind by file name: they all decode."""
    image = crop(7, 150, 200)
    picture = Image.fromarray(image)
    deep = cv2.cvtColor(image, cv2.COLOR_RGB2BGR).astype(np.uint16) * 257
    turned = {f"exif{turn}.jpg": encode(image, "JPEG", quality=95, exif=exif(turn)) for turn in range(2, 9)}
    return {
        "plain.jpg": encode(image, "JPEG", quality=95),
        "progressive.jpg": encode(image, "JPEG", progressive=True),
        "grey.jpg": encode(picture.convert("L"), "JPEG"),
        "cmyk.jpg": encode(picture.convert("CMYK"), "JPEG"),
        "plain.png": encode(image, "PNG"),
        "alpha.png": encode(_with_alpha(image), "PNG"),
        "grey-alpha.png": encode(picture.convert("LA"), "PNG"),
        "palette.png": encode(picture.quantize(32), "PNG"),
        "palette-transparent.png": encode(picture.quantize(32), "PNG", transparency=3),
        "16-bit.png": cv2.imencode(".png", deep)[1].tobytes(),
        "16-bit-grey.png": cv2.imencode(".png", deep[:, :, 0])[1].tobytes(),
        "one-bit.png": encode(picture.convert("1"), "PNG"),
        "lossy.webp": encode(image, "WEBP"),
        "lossless-alpha.webp": encode(_with_alpha(image), "WEBP", lossless=True),
        "animated.webp": encode(image, "WEBP", save_all=True, append_images=[picture.rotate(90)]),
        "plain.bmp": encode(image, "BMP"),
        "palette.bmp": encode(picture.quantize(16), "BMP"),
        "plain.gif": encode(image, "GIF"),
        "animated.gif": encode(image, "GIF", save_all=True, append_images=[picture.rotate(180)]),
        "broken-exif.jpg": encode(image, "JPEG", exif=b"Exif\0\0garbage"),
        **turned,
    }


def _with_alpha(image: Pixels) -> Image.Image:
    ramp = np.broadcast_to(np.linspace(0, 255, image.shape[1]).astype(np.uint8), image.shape[:2])
    return Image.fromarray(np.dstack([image, ramp]))


def bomb(side: int = 50_000) -> bytes:
    """Return a PNG of a few bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@cache
def bad_images() -> dict[str, tuple[bytes, str]]:
    """Return files that must become rejects, by name: bytes and code."""
    image = crop(9, 150, 200)
    jpg, png = encode(image, "JPEG"), encode(image, "PNG")
    thumbnail = encode(image, "JPEG", exif=_exif_with_thumbnail())
    return {
        "empty.jpg": (b"", "empty"),
        "cut.jpg": (jpg[: len(jpg) // 2], "truncated"),
        "cut-by-two.jpg": (jpg[:-2], "truncated"),
        "cut-with-thumbnail.jpg": (thumbnail[:-20], "truncated"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "cut.webp": (encode(image, "WEBP")[:-20], "truncated"),
        "cut.bmp": (encode(image, "BMP")[:-200], "truncated"),
        "cut.gif": (encode(image, "GIF")[:-200], "truncated"),
        "text.jpg": (b"this is no image, whatever its name says\n", "unsupported"),
        "page.png": (b"<!doctype html><title>404</title>", "unsupported"),
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported"),
        "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported"),
        "scan.tiff": (encode(image, "TIFF"), "unsupported"),
        "bomb.png": (bomb(), "too_large"),
        "damaged.png": (png[:60] + bytes(len(png) - 80) + png[-20:], "undecodable"),
        "damaged-data.png": (_flip(png, 200), "undecodable"),
        "header-only.jpg": (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(9) + b"\xff\xda\xff\xd9", "undecodable"),
    }


def _flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def _exif_with_thumbnail() -> bytes:
    """Return an EXIF block that holds a whole JPEG, end marker included, as cameras write it."""
    small = encode(crop(3, 24, 32), "JPEG")
    ifd0 = struct.pack("<HI", 0, 14)  # no entries; the thumbnail's directory follows at 14
    ifd1 = struct.pack("<H", 2) + struct.pack("<HHII", 0x201, 4, 1, 44) + struct.pack("<HHII", 0x202, 4, 1, len(small))
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + ifd0 + ifd1 + struct.pack("<I", 0) + small


def _varied(seed: int) -> Pixels:
    """Return a piece of a photograph, 224 x 224, at a random scale, brightness, contrast and order of colours."""
    random = np.random.default_rng(10_000 + seed)
    side = int(random.integers(16, 400))
    image = cv2.resize(crop(seed, side, side), (224, 224))[:, :, random.permutation(3)].astype(np.float32)
    image = (image - 128) * random.uniform(0.1, 1.5) + random.uniform(20, 235)
    return np.clip(image, 0, 255).astype(np.uint8)


#: Scale of the residual branches. Training begins with 0 (Goyal et al. 2017, arXiv:1706.02677, section 5.1) and ends
#: below 1: at 1, each of the sixteen blocks doubles the variance, and the network blows up every rounding as no trained
#: one does, so that the same test passes or fails with the processor's order of additions.
RESIDUAL_SCALE = 0.5


def calibrate(path: Path, num_images: int = 48) -> None:
    """Save weights of the network, random but with batch-norm statistics of real images.

    With plain initial weights any two images' embeddings have a cosine near 1, so that no comparison could fail. The
    images vary in scale, brightness, contrast and colours as a real collection does: with statistics of a narrow one,
    the network would blow up the smallest difference between two images, rounding included.
    """
    network = build_random(MICROSOFTVISION_RESNET50.build, 0)
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # plain average over the batches
            if name.endswith("bn3"):
                torch.nn.init.constant_(module.weight, RESIDUAL_SCALE)
    network.train()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MICROSOFTVISION.mean, MICROSOFTVISION.std))
    with torch.no_grad():
        for start in range(0, num_images, 16):
            batch = [_varied(seed) for seed in range(start, start + 16)]
            images = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 255
            network((images - mean) / std)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
