"""The ridge head: strengths tried on validation in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pipeline.heads.artefact import Head
from pipeline.heads.compute import Standardised
from pipeline.heads.models import Layers
from pipeline.heads.ridge import ALPHA_GRID, RidgePath
from pipeline.heads.span import span_of
from pipeline.heads.task import FitTask


def fit_ridge(task: FitTask) -> Head:
    """Solve for one strength, or for each of the grid, and keep the best on validation, the larger where equal."""
    mean, scale = task.moments.standardisation()
    path = RidgePath(task.moments, scale, span_of(task))
    sweep: list[dict[str, Any]] = []
    if task.options.alpha is not None:
        alpha = task.options.alpha
    elif not len(task.validation):
        alpha = 1e-2
    else:
        solutions = [path.solve(value) for value in ALPHA_GRID]
        weights = torch.from_numpy(np.stack([weight for weight, _ in solutions])).to(task.device)  # (A, K, D)
        bias = torch.from_numpy(solutions[0][1]).to(task.device)
        correct = np.zeros(len(ALPHA_GRID), np.int64)
        for X, y in Standardised(task.validation, mean, scale, task.device, torch.float32).blocks():
            for place, weight in enumerate(weights):
                correct[place] += int(((X @ weight.T + bias).argmax(dim=1) == y).sum())
        sweep = [
            {"alpha": value, "validation_top1": float(count / len(task.validation))}
            for value, count in zip(ALPHA_GRID, correct, strict=True)
        ]
        alpha = max(sweep, key=lambda entry: (entry["validation_top1"], entry["alpha"]))["alpha"]
    layers = Layers(mean, scale, (path.solve(alpha),))
    return Head("ridge", task.classes, task.contract, layers, config={"alpha": alpha, "sweep": sweep})
