"""How much more training rows would help: heads fitted to growing parts of them, measured on the same rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.errors import ConfigError
from pipeline.heads.artefact import Head
from pipeline.heads.features import Features
from pipeline.heads.metrics import observe, summarise
from pipeline.heads.options import TrainOptions
from pipeline.heads.parts import TEST, VALIDATION, Parts
from pipeline.heads.rows import TRAIN
from pipeline.heads.subset import Subset
from pipeline.heads.task import FitTask

logger = logging.getLogger(__name__)

#: Shares of the training rows that a learning curve is made of.
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def learning_curve(
    parts: Parts,
    features: Mapping[str, Features],
    options: TrainOptions,
    metrics: Mapping[str, Any],
    fit: Callable[[FitTask], Head],
) -> dict[str, Any]:
    """Fit a head to each share of the training rows, or to some rows of each class.

    What a larger point is fitted to holds what a smaller one is. What is chosen on validation is chosen anew for each.

    Args:
        parts: Which rows are for what.
        features: Of each part.
        options: How heads are fitted, and to how many rows of each class (``shots``); unset: to `SHARES` of the rows.
        metrics: Of the head that was fitted to all training rows, by part.
        fit: Fits a head.

    Returns:
        As plain JSON values: ``on``, the part that it is measured on: test, or validation where there is none; and
        ``points`` with ``share`` or ``shots``, ``num_rows``, ``top1`` and its 95 % ``interval``.

    Raises:
        ConfigError: There are no rows to measure on.
    """
    on = require_measured(features)
    name = "shots" if options.shots else "share"
    points = []
    for value in options.shots or SHARES:
        subset = Subset(options.seed, shots=int(value)) if options.shots else Subset(options.seed, value)
        keep = subset.of(parts)
        if keep.all():
            measured = metrics[on]
        else:
            train = features[TRAIN].only(keep)
            task = FitTask(options, parts.rows.contract, parts.classes, train, features[VALIDATION], subset=subset)
            head = fit(task)
            measured = summarise(observe(head, features[on], parts.names), options.seed)
        points.append(
            {
                name: value,
                "num_rows": int(keep.sum()),
                "top1": measured["top1"],
                "interval": measured["intervals"]["top1"],
            }
        )
        logger.info("Learning curve: %d rows, %s top-1 %.4f.", points[-1]["num_rows"], on, measured["top1"])
    return {"on": on, "points": points}


def require_measured(features: Mapping[str, Features]) -> str:
    """Return the part that tells how good a head is: test, or validation where there is none.

    Raises:
        ConfigError: There is neither.
    """
    for name in (TEST, VALIDATION):
        if len(features[name]):
            return name
    raise ConfigError(
        "Expected rows of test or validation to measure a learning curve on, got train alone, whose classes are too "
        "small to hold any out. Embed a test folder, too, or train without --learning-curve and --shots."
    )
