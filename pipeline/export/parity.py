"""Whether a program gives what the pipeline gives, on real images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.backbones import Backbone, Preprocessing
from pipeline.engines import embed, load_engine
from pipeline.errors import ConfigError
from pipeline.export.formats import Run
from pipeline.heads import Head
from pipeline.heads.models import Floats
from pipeline.images import Pixels

#: Sizes of the batches that a program gets in turn: it must take any.
_BATCH_SIZES = (1, 2, 5, 8)
#: Least cosine similarity of an image's two embeddings, both in float32.
_LEAST_COSINE = 0.9999
#: Sides (pixels) of the pieces of photographs, before the preprocessing.
_SMALLEST_PIECE, _LARGEST_PIECE = 64, 400


def built_in_pixels(preprocessing: Preprocessing, count: int) -> Pixels:
    """Return pieces of scikit-learn's two photographs, the same ones every time.

    Returns:
        uint8 of shape (count, H, W, 3), BGR.
    """
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    random = np.random.default_rng(0)
    pieces = []
    for place in range(count):
        photograph = photographs[place % len(photographs)]
        height, width = random.integers(_SMALLEST_PIECE, _LARGEST_PIECE, 2)
        top, left = (random.integers(0, photograph.shape[axis] - side) for axis, side in enumerate((height, width)))
        piece = photograph[top : top + height, left : left + width, ::-1]
        pieces.append(preprocessing.pixels(np.ascontiguousarray(piece)))
    return np.stack(pieces)


def compare(run: Run, backbone: Backbone, head: Head, pixels: Pixels, cache_dir: str) -> dict[str, Any]:
    """Compare a program with the pipeline's own engine and head, in float32 on this CPU.

    Args:
        run: Executes the program.
        backbone: What it is to embed with.
        head: What it is to classify with.
        pixels: uint8 of shape (N, H, W, 3), BGR, N >= 1.
        cache_dir: Folder for converted networks.

    Returns:
        As plain JSON values: ``images`` that were compared, the ``reference``, the largest difference of a probability
        (None where one is undefined), the least cosine similarity of embeddings, and the share of images with the same
        most probable class.
    """
    engine = load_engine(backbone, "openvino", "fp32", device="cpu", cache_dir=cache_dir)
    embeddings = embed(engine, pixels)
    probabilities = head.probabilities(embeddings)
    found = _in_batches(run, pixels)
    difference = float(np.abs(found[0] - probabilities).max())
    return {
        "images": len(pixels),
        "reference": f"openvino fp32 on {engine.info.device}",
        "max_probability_difference": difference if np.isfinite(difference) else None,
        "min_cosine": float(_cosines(found[1], embeddings).min()),
        "top1_agreement": float((found[0].argmax(axis=1) == probabilities.argmax(axis=1)).mean()),
    }


def _in_batches(run: Run, pixels: Pixels) -> tuple[Floats, Floats]:
    parts: list[tuple[Floats, Floats]] = []
    start = 0
    while start < len(pixels):
        size = _BATCH_SIZES[len(parts) % len(_BATCH_SIZES)]
        parts.append(run(pixels[start : start + size]))
        start += size
    probabilities, embeddings = (np.concatenate(column) for column in zip(*parts, strict=True))
    return probabilities, embeddings


def _cosines(one: Floats, other: Floats) -> NDArray[np.float64]:
    """Return the cosine similarity of each pair of rows: of equal ones 1, and -1 where it isn't defined."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(all="ignore"):
        cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.where((a == b).all(axis=1), 1.0, np.where(np.isfinite(cosines), cosines, -1.0))


def describe(report: Mapping[str, Any]) -> str:
    """Return what `compare` found in one sentence."""
    difference = report["max_probability_difference"]
    return (
        f"Against the pipeline ({report['reference']}) on {report['images']} images: probabilities differ by "
        f"{'something undefined' if difference is None else f'{difference:.2g}'} at most, embeddings have a cosine "
        f"similarity of {report['min_cosine']:.7f} at worst, the most probable class agrees on "
        f"{report['top1_agreement']:.2%}."
    )


def require_parity(report: Mapping[str, Any], tolerance: float) -> None:
    """Refuse a program that gives something else than the pipeline.

    Args:
        report: What `compare` has returned.
        tolerance: Largest difference of a probability.

    Raises:
        ConfigError: It does.
    """
    difference = report["max_probability_difference"]
    if difference is None or difference > tolerance or report["min_cosine"] < _LEAST_COSINE:
        raise ConfigError(
            f"The program is too far from the pipeline: expected probabilities that differ by at most {tolerance} "
            f"(--tolerance), and embeddings with a cosine similarity of at least {_LEAST_COSINE}. {describe(report)} "
            "Nothing was written. Try the other --format, or another version of PyTorch."
        )
