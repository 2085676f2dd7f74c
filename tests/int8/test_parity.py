"""The comparison of a quantised network with its float one, and the limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.contract import FeatureContract
from pipeline.errors import ConfigError
from pipeline.int8.parity import compare, describe, require_near
from pipeline.int8.sample import Sample

CONTRACT = FeatureContract("pixels", "00", {"name": "p"}, 6, "none")
COMMON = 100.0  # what all images' features have in common


def sample(seed: int, num: int = 60, labelled: bool = True) -> tuple[Sample, np.ndarray]:
    """Return images of three classes, and features that tell them apart."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, num)
    features = COMMON + np.eye(6)[classes] * 5 + random.normal(size=(num, 6))
    labels = tuple(f"class {c}" if labelled else None for c in classes)
    pixels = np.zeros((num, 1, 1, 3), np.uint8)
    return Sample(pixels, tuple(map(str, range(num))), labels), features.astype(np.float32)


def report(noise: float, labelled: bool = True) -> dict[str, Any]:
    """Compare features with the same ones and noise."""
    (one, features), (other, others) = sample(0, labelled=labelled), sample(1, labelled=labelled)
    random = np.random.default_rng(2)
    noisy = [(each + noise * random.normal(size=each.shape)).astype(np.float32) for each in (features, others)]
    return compare((features, others), (noisy[0], noisy[1]), (one, other), CONTRACT)


def test_compare__the_same_features() -> None:
    same = report(0)
    assert same["cosine"] == same["centred_cosine"] == {"mean": 1.0, "worst": 1.0}
    assert same["accuracy"]["float"] == same["accuracy"]["int8"] > 0.9
    assert (same["images"], same["accuracy"]["images"], same["accuracy"]["classes"]) == (60, 60, 3)
    require_near(same, 1.0, 0.0)


def test_compare__what_all_images_have_in_common_hides_nothing() -> None:
    far = report(20)
    assert far["cosine"]["mean"] > 0.9
    assert far["centred_cosine"]["mean"] < 0.5
    assert far["accuracy"]["drop_points"] > 20
    with pytest.raises(ConfigError, match=r"--min-int8-cosine\) and a head that loses at most 2.0 points"):
        require_near(far, 0.9, 2.0)


def test_require_near__each_limit_by_itself() -> None:
    far = report(20)
    with pytest.raises(ConfigError, match="Nothing was written") as refused:
        require_near(far, -1, 2.0)
    assert "min-int8-cosine" not in str(refused.value)
    with pytest.raises(ConfigError, match="min-int8-cosine") as refused:
        require_near(far, 0.9, 100)
    assert "max-int8-accuracy-drop" not in str(refused.value)
    require_near(far, -1, 100)


def test_compare__without_labels_there_is_no_accuracy() -> None:
    near = report(0.1, labelled=False)
    assert near["accuracy"] is None
    assert "no accuracy" in describe(near)
    require_near(near, 0.9, 0.0)


def test_compare__undefined_features_are_far() -> None:
    (one, features), (other, others) = sample(0), sample(1)
    broken = np.full_like(others, np.nan)
    found = compare((features, others), (features, broken), (one, other), CONTRACT)
    assert found["centred_cosine"] == {"mean": -1.0, "worst": -1.0}
    assert found["accuracy"] is None
    with pytest.raises(ConfigError, match="too far"):
        require_near(found, 0.0, 100)


def test_describe__gives_both_figures() -> None:
    text = describe(report(0))
    assert "cosine similarity 1.0000 on average, 1.0000 at worst" in text
    assert "(+0.00 points, 60 images of 3 classes)" in text
