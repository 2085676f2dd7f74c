"""Fit a head of any kind."""

from __future__ import annotations

from dataclasses import replace

from pipeline.heads.artefact import Head
from pipeline.heads.calibration import temperature
from pipeline.heads.task import FitTask


def fit_head(task: FitTask) -> Head:
    """Fit, choose what there is to choose on validation, and calibrate the probabilities there."""
    head = _fit(task)
    return replace(head, temperature=temperature(head, task.validation)) if len(task.validation) else head


def _fit(task: FitTask) -> Head:
    if task.options.kind == "ridge":
        from pipeline.heads.fit_ridge import fit_ridge

        return fit_ridge(task)
    if task.options.kind == "knn":
        from pipeline.heads.fit_knn import fit_knn

        return fit_knn(task)
    if task.options.kind == "mlp":
        from pipeline.heads.mlp import fit_mlp

        return fit_mlp(task)
    from pipeline.heads.fit_logistic import fit_logistic

    return fit_logistic(task)
