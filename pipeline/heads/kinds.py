"""The kinds of heads."""

from __future__ import annotations

from typing import Literal

HeadKind = Literal["logistic", "mlp", "knn", "ridge"]
