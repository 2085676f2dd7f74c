"""Heads of every kind, made up, and images for them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pipeline.contract import FeatureContract
from pipeline.heads import Head
from pipeline.heads.kinds import HeadKind
from pipeline.heads.models import Layers, Model
from pipeline.heads.neighbours import Neighbours, normalised
from pipeline.images import Pixels

CLASSES = ("dog", "cat", "Äpfel", "unknown animal", "newt", "owl", "rat")
KINDS: tuple[HeadKind, ...] = ("logistic", "ridge", "mlp", "knn")


def make_head(kind: HeadKind, contract: FeatureContract, seed: int = 0) -> Head:
    """Return a head whose probabilities are neither all alike nor all 0 and 1, at a temperature of its own."""
    random = np.random.default_rng(seed)
    D, K = contract.embedding_dim, len(CLASSES)
    model: Model
    if kind == "knn":
        bank = normalised(random.uniform(size=(300, D))).astype(np.float16)
        model = Neighbours(bank, random.integers(0, K, 300).astype(np.int32), 15, 0.07, K)
    else:
        widths = (D, 24, 16, K) if kind == "mlp" else (D, K)
        layers = tuple(
            (
                (random.normal(size=(out, width)) * 2 / np.sqrt(width)).astype(np.float32),
                random.normal(size=out).astype(np.float32),
            )
            for width, out in pairwise(widths)
        )
        mean, scale = random.uniform(0.3, 0.6, D), random.uniform(0.1, 0.3, D)
        model = Layers(mean.astype(np.float32), scale.astype(np.float32), layers)
    return Head(kind, CLASSES, contract, model, 1.7)


def random_pixels(count: int, side: int) -> Pixels:
    """Return images of 8 x 8 colours, so that they are all different: uint8 of shape (count, side, side, 3), BGR."""
    colours = np.random.default_rng(5).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return colours.repeat(side // 8, axis=1).repeat(side // 8, axis=2)
