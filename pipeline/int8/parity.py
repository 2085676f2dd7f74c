"""How near the features of a quantised network are to those of its float network, and whether that is near enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import FeatureContract
from pipeline.engines import Embeddings
from pipeline.errors import ConfigError
from pipeline.heads import HeadOptions, fit_head
from pipeline.heads.features import MemoryFeatures
from pipeline.heads.task import FitTask
from pipeline.int8.sample import Sample


def compare(
    of_float: tuple[Embeddings, Embeddings],
    of_int8: tuple[Embeddings, Embeddings],
    samples: tuple[Sample, Sample],
    contract: FeatureContract,
) -> dict[str, Any]:
    """Compare the features of two networks.

    Args:
        of_float: Those of the float network, float32 of shape (N, D), of two samples.
        of_int8: Those of the quantised one.
        samples: The images: those that it was calibrated with, which also train the heads, and others, by which
            everything is measured.
        contract: Of the float features.

    Returns:
        As plain JSON values: ``images`` that were compared; mean and worst ``cosine`` similarity of both features of an
        image; the same of ``centred_cosine``, with the mean of the float features subtracted from both, since the
        features of all images have much in common, and a head goes by the rest; and ``accuracy``, see `_accuracy`.
    """
    centre = of_float[1].mean(axis=0, dtype=np.float64)
    return {
        "images": len(samples[1]),
        "cosine": _mean_and_worst(_cosines(of_float[1], of_int8[1])),
        "centred_cosine": _mean_and_worst(_cosines(of_float[1] - centre, of_int8[1] - centre)),
        "accuracy": _accuracy(of_float, of_int8, samples, contract),
    }


def _cosines(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the cosine similarity of each pair of rows: of equal ones 1, and -1 where it isn't defined."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(all="ignore"):
        cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.where((a == b).all(axis=1), 1.0, np.where(np.isfinite(cosines), cosines, -1.0))


def _mean_and_worst(cosines: NDArray[np.float64]) -> dict[str, float]:
    return {"mean": round(float(cosines.mean()), 6), "worst": round(float(cosines.min()), 6)}


def _accuracy(
    of_float: tuple[Embeddings, Embeddings],
    of_int8: tuple[Embeddings, Embeddings],
    samples: tuple[Sample, Sample],
    contract: FeatureContract,
) -> dict[str, Any] | None:
    """Return the top-1 accuracy of a logistic head on either features; None without two classes in both samples.

    Returns:
        ``float`` and ``int8`` (shares), ``drop_points`` (percentage points, negative for a gain), ``images`` that were
        classified, and the number of ``classes``.
    """
    train, test = (np.asarray([label is not None for label in sample.labels], bool) for sample in samples)
    classes = sorted({label for label in samples[0].labels if label is not None})
    if len(classes) < 2 or len({label for label in samples[1].labels if label is not None}) < 2:
        return None
    if not all(np.isfinite(features).all() for features in (*of_float, *of_int8)):
        return None
    reached = {}
    for name, features in (("float", of_float), ("int8", of_int8)):
        known = _labelled(features[0], samples[0], train, classes)
        asked = _labelled(features[1], samples[1], test, classes)
        nobody = known.only(np.zeros(len(known), bool))
        head = fit_head(FitTask(HeadOptions(C=1.0, device="cpu"), contract, tuple(classes), known, nobody))
        reached[name] = float((head.scores(asked.X).argmax(axis=1) == asked.y).mean())
    return {
        **{name: round(share, 6) for name, share in reached.items()},
        "drop_points": round(100 * (reached["float"] - reached["int8"]), 4),
        "images": int(test.sum()),
        "classes": len(classes),
    }


def _labelled(features: Embeddings, sample: Sample, mask: NDArray[np.bool_], classes: list[str]) -> MemoryFeatures:
    places = {name: place for place, name in enumerate(classes)}
    y = np.asarray([places.get(label, -1) for label in sample.labels], np.int64)  # type: ignore[arg-type]
    return MemoryFeatures(features[mask], y[mask])


def describe(report: Mapping[str, Any]) -> str:
    """Return what `compare` found in one sentence."""
    cosine, centred, accuracy = report["cosine"], report["centred_cosine"], report["accuracy"]
    text = (
        f"int8 against float32 on {report['images']} images: cosine similarity {cosine['mean']:.4f} on average, "
        f"{cosine['worst']:.4f} at worst; centred {centred['mean']:.4f} and {centred['worst']:.4f}"
    )
    if accuracy is None:
        return f"{text}; no accuracy, for want of two classes."
    return (
        f"{text}; top-1 accuracy of a head {accuracy['int8']:.4f} instead of {accuracy['float']:.4f} "
        f"({0.0 - accuracy['drop_points']:+.2f} points, {accuracy['images']} images of {accuracy['classes']} classes)."
    )


def require_near(report: Mapping[str, Any], min_cosine: float, max_drop: float) -> None:
    """Refuse a quantised network whose features are too far from the float network's.

    Args:
        report: What `compare` has returned.
        min_cosine: Least mean of the centred cosine similarities.
        max_drop: Most that the head may lose (percentage points).

    Raises:
        ConfigError: They are.
    """
    misses = []
    if not report["centred_cosine"]["mean"] >= min_cosine:
        misses.append(f"a mean centred cosine similarity of at least {min_cosine} (--min-int8-cosine)")
    if report["accuracy"] is not None and report["accuracy"]["drop_points"] > max_drop:
        misses.append(f"a head that loses at most {max_drop} points (--max-int8-accuracy-drop)")
    if misses:
        raise ConfigError(
            f"The quantised network is too far from the float one: expected {' and '.join(misses)}. Got "
            f"{describe(report)} Nothing was written. Leave --precision out, calibrate with more images "
            "(--calibration-images), or allow more."
        )
