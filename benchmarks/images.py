"""Images to measure on: JPEGs with the statistics of photographs, made here, so that nothing need be downloaded.

What decoding costs goes by the size of an image and by how much detail it has. So a scene is a dead-leaves model: discs
that hide each other, their radii distributed by r^-3, which gives the edges and the scale invariance of photographs
(Lee, Mumford and Huang, "Occlusion models for natural images", IJCV 2001); each disc has a texture with a spectrum of
1/f. Sizes are those of ImageNet's training set, mostly 500 pixels on the longer side; its 1,281,167 files have 138 GB,
108 kB each, which the quality of the JPEGs is chosen for.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

#: Width and height in pixels, and their share of the images.
IMAGENET_SIZES = {(500, 375): 0.5, (500, 333): 0.25, (375, 500): 0.13, (333, 500): 0.07, (640, 480): 0.05}
_SCENE = 1400
_NUM_SCENES, _NUM_LEAVES = 8, 16_000
_RADII = 5, 300
_QUALITY = 96
#: To be raised whenever the images change.
_FORM = 1


def photographs(num_images: int, folder: Path, sizes: dict[tuple[int, int], float] | None = None) -> Path:
    """Return a folder of different JPEGs, the same ones every time; made, unless they are there from before.

    Args:
        num_images: How many.
        folder: Where to keep them.
        sizes: Width and height in pixels, and their shares; None for ImageNet's.
    """
    sizes = sizes or IMAGENET_SIZES
    name = "-".join(f"{width}x{height}" for width, height in list(sizes)[:1])
    done = folder / f"images-{_FORM}-{name}-{num_images}"
    if done.exists():
        return done
    unfinished = done.with_name(f"{done.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for label in range(10):
        (unfinished / f"class-{label}").mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(_write_some, unfinished, num_images, sizes), range(_NUM_SCENES)))
    unfinished.rename(done)
    return done


def multiplied(source: Path, times: int, folder: Path | None = None) -> Path:
    """Return a folder that has each image of another several times, with different bytes and the same pixels.

    The bytes differ by a comment, since images that have the same bytes are embedded once.

    Args:
        source: The other folder.
        times: How often each image comes.
        folder: Where to keep them; None: beside the other folder.
    """
    done = (folder or source.parent) / f"{source.name}-x{times}"
    if done.exists():
        return done
    unfinished = done.with_name(f"{done.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for path in sorted(source.rglob("*.jpg")):
        data = path.read_bytes()
        target = unfinished / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        for number in range(times):
            comment = b"%8d" % number
            segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            target.with_stem(f"{path.stem}-{number}").write_bytes(data[:2] + segment + data[2:])
    unfinished.rename(done)
    return done


def _write_some(folder: Path, num_images: int, sizes: dict[tuple[int, int], float], scene: int) -> None:
    """Write the images that come from one scene."""
    random = np.random.default_rng(scene)
    leaves = _dead_leaves(random)
    shapes, shares = list(sizes), np.cumsum(list(sizes.values()))
    for number in range(scene, num_images, _NUM_SCENES):
        width, height = shapes[int(np.searchsorted(shares, random.uniform(0, shares[-1])))]
        zoom = random.uniform(0.8, 1.25) if max(width, height) * 1.25 < _SCENE else 1.0
        cut = int(width / zoom), int(height / zoom)
        left, top = (int(random.integers(0, _SCENE - length)) for length in cut)
        piece = leaves[top : top + cut[1], left : left + cut[0]]
        image = cv2.resize(piece, (width, height), interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
        path = folder / f"class-{number % 10}" / f"{number:06d}.jpg"
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def _dead_leaves(random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a scene, uint8 of shape (H, W, 3), BGR."""
    textures = [_pink_noise(random) for _ in range(4)]
    low, high = _RADII
    scene = np.full((_SCENE, _SCENE, 3), 128, np.float32)
    # The inverse of the distribution function of r^-3 between two bounds.
    share = random.uniform(size=_NUM_LEAVES)
    radii = (low**-2 - share * (low**-2 - high**-2)) ** -0.5
    for radius, texture in zip(radii, itertools.cycle(textures)):
        x, y = random.uniform(0, _SCENE, 2)
        box = _box(x, radius), _box(y, radius)
        rows, columns = np.ogrid[box[1], box[0]]
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        colour = random.uniform(20, 235) + random.normal(0, 25, 3)
        contrast = random.uniform(3, 22)
        patch = colour + contrast * texture[box[1], box[0], None]
        scene[box[1], box[0]][disc] = patch[disc]
    blurred = cv2.GaussianBlur(scene, (0, 0), 0.6)  # a lens
    return np.clip(blurred + random.normal(0, 1.5, scene.shape), 0, 255).astype(np.uint8)  # and a sensor


def _box(centre: float, radius: float) -> slice:
    return slice(max(0, int(centre - radius)), min(_SCENE, int(centre + radius) + 1))


def _pink_noise(random: np.random.Generator) -> NDArray[np.float32]:
    """Return a field with an amplitude spectrum of 1/f, of mean 0 and variance 1."""
    frequency = np.hypot(np.fft.fftfreq(_SCENE)[:, None], np.fft.rfftfreq(_SCENE)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.normal(size=(_SCENE, _SCENE))) / frequency
    field = np.fft.irfft2(spectrum, s=(_SCENE, _SCENE))
    return (field / field.std()).astype(np.float32)


def files(folder: Path) -> Iterator[Path]:
    """Yield a folder's images in name order."""
    return iter(sorted(folder.rglob("*.jpg")))


def mean_bytes(folder: Path) -> float:
    """Return the mean length of a folder's images."""
    lengths = [os.path.getsize(path) for path in files(folder)]
    return sum(lengths) / len(lengths)
