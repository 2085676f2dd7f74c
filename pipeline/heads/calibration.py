"""Temperature scaling: one number that makes probabilities what they say (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from pipeline.heads.artefact import Head
from pipeline.heads.features import Features
from pipeline.heads.models import Floats

#: Rows below which a temperature would be a guess, and scores beyond which more rows add nothing but memory.
_MIN_ROWS, _MAX_SCORES = 20, 2**23
#: How far the natural logarithm of the temperature may be from that of the scores' spread. Ridge regression on 10,000
#: classes gives scores of some thousandths, others of some tens.
_FROM_SPREAD = 7.0


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
    # Platt's targets (1999): n rows without a mistake say that at least one in n + 2 is wrong. Without them, the colder
    # would be the better where all rows are right, without end.
    doubt = 1 / (len(y) + 2)
    other = doubt / (len(head.classes) - 1)
    target = (1 - doubt - other) * of_true + other * s.sum(axis=1)

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float((np.log(np.exp(s * inverse).sum(axis=1)) - target * inverse).mean())

    spread = float(np.log(s.std()))
    bounds = (spread - _FROM_SPREAD, spread + _FROM_SPREAD)
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(best.x))
