"""The logistic head: scikit-learn's multinomial logistic regression on standardised features (a linear probe)."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from pipeline.contract import FeatureContract
from pipeline.heads.artefact import Head, standardisation
from pipeline.heads.data import LabelledFeatures, class_indices

logger = logging.getLogger(__name__)

#: Inverse strengths of the L2 penalty that are tried; on standardised features the best lies well inside.
C_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
#: L-BFGS iterations at most, as in the linear-probe protocol of CLIP (Radford et al. 2021, appendix A.3).
MAX_ITERATIONS = 1000


def train_logistic(
    train: LabelledFeatures, validation: LabelledFeatures, contract: FeatureContract, classes: tuple[str, ...]
) -> Head:
    """Fit for each C, and keep the one with the best top-1 accuracy on validation, the smaller C where equal."""
    mean, scale = standardisation(train.X)
    X, y = (train.X - mean) / scale, class_indices(train.labels, classes)
    X_validation, y_validation = (validation.X - mean) / scale, class_indices(validation.labels, classes)
    sweep: list[dict[str, Any]] = []
    best: tuple[float, LogisticRegression] | None = None
    for C in C_GRID if len(validation) else (1.0,):
        model = LogisticRegression(C=C, max_iter=MAX_ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, y)
        accuracy = float((model.predict(X_validation) == y_validation).mean()) if len(validation) else 0.0
        iterations = int(np.max(model.n_iter_))
        sweep.append(
            {"C": C, "validation_top1": accuracy, "iterations": iterations, "converged": iterations < MAX_ITERATIONS}
        )
        if best is None or accuracy > best[0]:
            best = accuracy, model
    assert best is not None
    model = best[1]
    if int(np.max(model.n_iter_)) >= MAX_ITERATIONS:
        logger.warning("The chosen regression (C = %g) stopped at %d iterations.", model.C, MAX_ITERATIONS)
    weight, bias = model.coef_, model.intercept_
    if len(classes) == 2:  # scikit-learn gives one row: the logit of the second class against the first
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    layers = ((weight.astype(np.float32), bias.astype(np.float32)),)
    return Head("logistic", classes, contract, mean, scale, layers, {"C": model.C, "sweep": sweep})
