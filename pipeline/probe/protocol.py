"""The linear-probe protocol of CLIP (Radford et al. 2021, appendix A.3) on one embedding table.

C is chosen on validation, then the regression is fitted again to train and validation together, and reported on test.
`pipeline.heads.fit_logistic` has the sweep: 1e-6 to 1e6, halving the interval around the best down to 8 values a
decade, each by L-BFGS of at most 1,000 iterations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.heads.artefact import Head
from pipeline.heads.fit import fit_head
from pipeline.heads.metrics import observe, summarise
from pipeline.heads.options import HeadOptions
from pipeline.heads.parts import TEST, VALIDATION, Parts
from pipeline.heads.rows import TRAIN, Mask, Rows, in_order
from pipeline.heads.splits import held_out
from pipeline.heads.task import FitTask
from pipeline.probe.suite import Splits

#: Salts of what is held out, so that validation and test are chosen independently.
_SALTS = {VALIDATION: 0, TEST: 1}


@dataclass(frozen=True, slots=True)
class Division:
    """Which rows are for what.

    Args:
        masks: Rows of ``train``, ``validation`` and ``test``, none of them empty: bool of shape (N,).
        held_out: Which of them were held out of train.
    """

    masks: dict[str, Mask]
    held_out: tuple[str, ...]


def divide(rows: Rows, splits: Splits, seed: int) -> Division:
    """Tell which rows are for what.

    Raises:
        ConfigError: A part has no rows.
    """
    train = _named(rows, splits.train)
    masks, carved = {}, []
    for part, name, fraction in (
        (TEST, splits.test, splits.test_fraction),
        (VALIDATION, splits.validation, splits.validation_fraction),
    ):
        if name is not None:
            masks[part] = _named(rows, name)
            continue
        masks[part] = held_out(rows.content, rows.label, train, fraction, seed, _SALTS[part])
        train &= ~masks[part]
        carved.append(part)
        if not masks[part].any():
            raise ConfigError(
                f"Expected to hold {part} out of the split {splits.train}, but each of its classes has only one image "
                f"that is left. Name a split for {part}."
            )
    return Division({TRAIN: train, **masks}, tuple(carved))


def _named(rows: Rows, name: str) -> Mask:
    mask = rows.of_split(name)
    if not mask.any():
        there = ", ".join(other for other in rows.splits if rows.of_split(other).any())
        raise ConfigError(f"Expected labelled images of the split {name} in {rows.table.uri}, got the splits {there}.")
    return mask


def linear_probe(
    rows: Rows, splits: Splits, memory_bytes: int, seed: int = 0, device: str = "auto"
) -> tuple[Head, dict[str, Any]]:
    """Choose C, fit, and measure.

    Args:
        rows: The table.
        splits: Which of its rows are for what.
        memory_bytes: For features; where they don't fit, they are streamed.
        seed: Of what is held out, and of the intervals.
        device: Where it is computed, as `pipeline.heads.options.HeadOptions` has it.

    Returns:
        The final head, and as plain JSON values: ``C``, ``sweep``, ``num_rows`` of each part, ``num_classes``,
        ``held_out``, and ``test``, the metrics by `pipeline.heads.metrics.summarise`.

    Raises:
        ConfigError: A part has no rows, or there are fewer than two classes.
    """
    how = HeadOptions.model_validate({"kind": "logistic", "seed": seed, "device": device})
    division = divide(rows, splits, seed)
    chosen = _choose(rows, division, how, memory_bytes)
    C = float(chosen.config["C"])
    both = division.masks[TRAIN] | division.masks[VALIDATION]
    parts = _parts(rows, {TRAIN: both, TEST: division.masks[TEST]})
    train, nothing, test = (parts.features(name, memory_bytes) for name in (TRAIN, VALIDATION, TEST))
    task = FitTask(how.model_copy(update={"C": C}), rows.contract, parts.classes, train, nothing, start=chosen)
    head = fit_head(task)
    metrics = summarise(observe(head, test, parts.names), seed)
    result = {
        "C": C,
        "sweep": chosen.config["sweep"],
        "num_rows": {name: int(mask.sum()) for name, mask in division.masks.items()},
        "num_classes": len(parts.classes),
        "held_out": list(division.held_out),
        "test": metrics,
    }
    config = {**head.config, "sweep": chosen.config["sweep"], "seed": seed, "fitted_to": [TRAIN, VALIDATION]}
    return replace(head, config=config, metrics={TEST: metrics}), result


def _choose(rows: Rows, division: Division, how: HeadOptions, memory_bytes: int) -> Head:
    """Return the head of the best C on validation, fitted to train alone."""
    parts = _parts(rows, {name: division.masks[name] for name in (TRAIN, VALIDATION)})
    train, validation = (parts.features(name, memory_bytes) for name in (TRAIN, VALIDATION))
    return fit_head(FitTask(how, rows.contract, parts.classes, train, validation))


def _parts(rows: Rows, masks: dict[str, Mask]) -> Parts:
    """Return parts whose classes are those of ``train``."""

    def labels(mask: Mask) -> set[str]:
        return {rows.names[place] for place in np.unique(rows.label[mask])}

    classes = in_order(labels(masks[TRAIN]))
    if len(classes) < 2:
        raise ConfigError(
            f"Expected at least 2 classes among the training images of {rows.table.uri}, got {len(classes)}: "
            f"{', '.join(classes)}. Check the labels and splits."
        )
    others = set().union(*(labels(mask) for mask in masks.values())) - set(classes)
    return Parts(rows, classes, (*classes, *in_order(others)), masks, ())
