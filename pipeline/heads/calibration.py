"""Temperature scaling: one number that makes probabilities what they say (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from pipeline.heads.artefact import Head
from pipeline.heads.features import Features
from pipeline.heads.models import Floats

#: Rows below which a temperature would be a guess, and scores beyond which more rows add nothing but memory.
_MIN_ROWS, _MAX_SCORES = 20, 2**25
#: Bounds of the temperature's natural logarithm.
_BOUNDS = (-7.0, 7.0)


def temperature(head: Head, validation: Features) -> float:
    """Return the temperature of least log loss on validation rows whose class the head knows; 1 for want of rows.

    Args:
        head: The head; its own temperature is not used.
        validation: Rows whose ``y`` are places in the head's classes, or beyond them.
    """
    scores: list[Floats] = []
    places: list[NDArray[np.int64]] = []
    room = max(_MIN_ROWS, _MAX_SCORES // len(head.classes))
    step, first = -(-len(validation) // room), 0  # rows from everywhere, since a table may be in the order of classes
    for X, y in validation.blocks():
        known = np.arange(first, len(y), step)
        first = (first - len(y)) % step
        known = known[y[known] < len(head.classes)]
        if len(known):
            scores.append(head.scores(X[known]))
            places.append(y[known])
    if sum(map(len, places)) < _MIN_ROWS:
        return 1.0
    s, y = np.concatenate(scores).astype(np.float64), np.concatenate(places)
    s -= s.max(axis=1, keepdims=True)
    of_true = s[np.arange(len(y)), y]
    if not (of_true < 0).any():
        return 1.0  # all rows are right: the colder, the better, without end, so there is nothing to learn it from

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float((np.log(np.exp(s * inverse).sum(axis=1)) - of_true * inverse).mean())

    best = minimize_scalar(loss, bounds=_BOUNDS, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(best.x))
