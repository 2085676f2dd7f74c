"""The same training with other seeds: how much of a figure is chance."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.heads.artefact import Head
from pipeline.heads.features import Features
from pipeline.heads.metrics import headline, observe
from pipeline.heads.options import TrainOptions
from pipeline.heads.parts import VALIDATION, Parts, divide
from pipeline.heads.rows import TRAIN
from pipeline.heads.task import FitTask

logger = logging.getLogger(__name__)


def seed_notes(parts: Parts, options: TrainOptions, streamed: bool) -> list[str]:
    """Return a sentence where other seeds were asked for, but change nothing."""
    # A regression on streamed rows chooses C on a random sample of them.
    alike = not parts.carved and (options.kind in ("ridge", "knn") or (options.kind == "logistic" and not streamed))
    if options.seeds == 1 or not alike:
        return []
    return [
        f"Other seeds change nothing (--seeds {options.seeds}): the table has splits of its own, and nothing about a "
        f"{options.kind} head is random."
    ]


def repeat(
    parts: Parts,
    features: dict[str, Features],
    options: TrainOptions,
    metrics: Mapping[str, Any],
    memory_bytes: int,
    fit: Callable[[FitTask], Head],
) -> dict[str, Any]:
    """Train with each further seed, and tell how far the metrics lie apart.

    Another seed holds other rows out of train, and starts from other weights.

    Args:
        parts: The first seed's.
        features: The first seed's; emptied where other rows are held out, so that they aren't in memory twice.
        options: Of the first seed.
        metrics: Of the first seed's head, by part.
        memory_bytes: For features.
        fit: Fits a head.

    Returns:
        As plain JSON values: ``seeds``, and ``metrics``: by part, for each headline metric its ``mean``, ``std`` (of a
        sample: divided by the number of seeds less one), ``min`` and ``max``, of the seeds that have it.
    """
    seeds = list(range(options.seed, options.seed + options.seeds))
    found = [{part: _headline_of(values) for part, values in metrics.items()}]
    for seed in seeds[1:]:
        again = options.model_copy(update={"seed": seed})
        if parts.carved:
            features.clear()
            parts = divide(parts.rows, again)
            features.update(parts.all_features(memory_bytes))
        head = fit(FitTask(again, parts.rows.contract, parts.classes, features[TRAIN], features[VALIDATION]))
        found.append(_measured(head, features, parts))
        logger.info(
            "Seed %d: %s.", seed, ", ".join(f"{part} top-1 {values['top1']:.4f}" for part, values in found[-1].items())
        )
    return {
        "seeds": seeds,
        "metrics": {
            part: {name: _spread([each[part][name] for each in found if part in each]) for name in values}
            for part, values in found[0].items()
        },
    }


def _measured(head: Head, features: Mapping[str, Features], parts: Parts) -> dict[str, dict[str, float | None]]:
    return {name: headline(observe(head, part, parts.names)) for name, part in features.items() if len(part)}


def _headline_of(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: metrics[name] for name in metrics["intervals"]}


def _spread(values: list[float | None]) -> dict[str, float] | None:
    there = [value for value in values if value is not None]
    if not there:
        return None
    return {
        "mean": float(np.mean(there)),
        "std": float(np.std(there, ddof=1)) if len(there) > 1 else 0.0,
        "min": min(there),
        "max": max(there),
    }
