"""Train a head on a table, validate it honestly, and evaluate it again later."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline import storage
from pipeline.contract import require_same_features
from pipeline.errors import ConfigError
from pipeline.heads import before_after
from pipeline.heads.artefact import Head, load_head, save_head
from pipeline.heads.features import Features, MemoryFeatures
from pipeline.heads.metrics import observe, summarise
from pipeline.heads.notes import label_notes
from pipeline.heads.options import EvaluateOptions, TrainOptions
from pipeline.heads.parts import TEST, VALIDATION, Parts, divide, free_memory_bytes
from pipeline.heads.rows import TRAIN, Rows, in_order, read_rows_of
from pipeline.table import open_table

if TYPE_CHECKING:
    from pipeline.heads.task import FitTask

logger = logging.getLogger(__name__)


def train(options: TrainOptions, fit: Callable[[FitTask], Head] | None = None) -> dict[str, Any]:
    """Train a head and save it.

    Args:
        options: How.
        fit: Fits it elsewhere; unset: in this process.

    Returns:
        The record: the head's classes, configuration and metrics by split; ``notes``, what may surprise about the
        table, as sentences; ``leaks``, images in two parts; and what was asked for of ``learning_curve`` and ``seeds``.

    Raises:
        TableError: The table is missing, or has no labels.
        ConfigError: There is nothing to learn: no training rows, or fewer than two classes; or an image is in two parts
            where ``strict_splits`` forbids it, or there is nothing to measure a learning curve on.
    """
    # They import PyTorch and SciPy, which who evaluates or predicts need not wait for.
    from pipeline.heads.checkpoint import FolderCheckpoint
    from pipeline.heads.curve import require_measured
    from pipeline.heads.fit import fit_head
    from pipeline.heads.leaks import find_leaks
    from pipeline.heads.repeats import seed_notes
    from pipeline.heads.shares import training_key
    from pipeline.heads.task import FitTask

    started = time.perf_counter()
    storage.require_folder(options.head, "--head")
    rows = read_rows_of(open_table(options.table, options.table_storage_options))
    before = _older_head(options, rows)
    parts = divide(rows, options)
    memory_bytes = int(options.memory_gb * 2**30) if options.memory_gb else free_memory_bytes()
    features = parts.all_features(memory_bytes)
    streamed = not isinstance(features[TRAIN], MemoryFeatures)
    _describe(parts, streamed)
    if options.learning_curve or options.shots:
        require_measured(features)
    leaks = find_leaks(parts, features, options)
    if options.strict_splits:
        leaks.refuse(options.table)
    notes = [*label_notes(parts), *leaks.notes, *seed_notes(parts, options, streamed)]
    for note in notes:
        logger.warning("%s", note)
    checkpoint = FolderCheckpoint(
        options.head, lambda: training_key(options, parts, before), options.table_storage_options
    )
    fit = fit or fit_head
    head = fit(  # a task that had a name would keep its features in memory
        FitTask(
            options,
            rows.contract,
            parts.classes,
            features[TRAIN],
            features[VALIDATION],
            start=before,
            checkpoint=checkpoint,
        )
    )
    outcomes = {name: observe(head, part, parts.names) for name, part in features.items() if len(part)}
    metrics = {name: summarise(outcome, options.seed) for name, outcome in outcomes.items()}
    without_leaked = leaks.without_leaked(outcomes, options.seed)
    compared = None if before is None else _before_after(before, head, features, parts, options.seed)
    more = _more(parts, features, options, metrics, memory_bytes, fit)
    config = {
        **head.config,
        "seed": options.seed,
        "held_out_of_train": list(parts.carved),
        "table": rows.table.uri,
        "table_rows": len(rows),
        "streamed": streamed,
        "notes": notes,
        "leaks": {**leaks.counts, "without_leaked": without_leaked},
        **more,
    }
    head = replace(head, config=config, metrics=metrics)
    save_head(head, options.head, options.table_storage_options)
    checkpoint.remove()
    return {
        "job": "train",
        "status": "done",
        "head": storage.absolute(options.head),
        "head_sha256": head.sha256,
        "kind": head.kind,
        "classes": list(head.classes),
        "contract": head.contract.to_json(),
        "before_after": compared,
        "num_unlabelled": int((~rows.labelled).sum()),
        "notes": notes,
        "leaks": {**leaks.record, "without_leaked": without_leaked},
        "config": config,
        "metrics": metrics,
        **more,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _older_head(options: TrainOptions, rows: Rows) -> Head | None:
    if options.from_head is None:
        return None
    head = load_head(options.from_head, options.table_storage_options)
    require_same_features(
        head.contract, rows.contract, f"Head {options.from_head}", f"Use a head that was trained on {options.table}."
    )
    return head


def _before_after(before: Head, head: Head, features: dict[str, Features], parts: Parts, seed: int) -> dict[str, Any]:
    """Return what became of an older head's classes, on test rows, or on validation rows where there are no others."""
    name = TEST if len(features[TEST]) else VALIDATION
    return {
        "part": name,
        **before_after.compare(before, head, features[name], parts.names, seed),
        **before_after.saved(before, parts.rows),
    }


def _more(
    parts: Parts,
    features: dict[str, Features],
    options: TrainOptions,
    metrics: dict[str, Any],
    memory_bytes: int,
    fit: Callable[[FitTask], Head],
) -> dict[str, Any]:
    """Return what was asked for of ``learning_curve`` and ``seeds``; the features may be gone afterwards."""
    from pipeline.heads.curve import learning_curve
    from pipeline.heads.repeats import repeat

    more: dict[str, Any] = {}
    if options.learning_curve or options.shots:
        more["learning_curve"] = learning_curve(parts, features, options, metrics, fit)
    if options.seeds > 1:
        more["seeds"] = repeat(parts, features, options, metrics, memory_bytes, fit)
    return more


def _describe(parts: Parts, streamed: bool) -> None:
    """Log what is trained on."""
    counts = {name: int(mask.sum()) for name, mask in parts.masks.items()}
    held = f"; {' and '.join(parts.carved)} held out of train by content" if parts.carved else ""
    where = "streamed from the table" if streamed else "in memory"
    logger.info(
        "Training on %d rows of %d classes, %s; %s%s.",
        counts[TRAIN],
        len(parts.classes),
        where,
        ", ".join(f"{count} {name}" for name, count in counts.items() if name != TRAIN) or "no others",
        held,
    )


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Measure a head on one split of a table.

    Returns:
        The record with ``metrics`` as `pipeline.heads.metrics.summarise` gives them.

    Raises:
        ContractMismatch: The table's features are not those that the head was trained on.
        ConfigError: The table has no rows of that split.
    """
    head: Head = load_head(options.head, options.table_storage_options)
    rows = read_rows_of(open_table(options.table, options.table_storage_options))
    require_same_features(
        head.contract, rows.contract, f"Head {options.head}", f"Embed the images of {options.table} the same way."
    )
    mask = rows.of_split(options.split)
    if not mask.any():
        names = ", ".join(name for name in rows.splits if rows.of_split(name).any())
        raise ConfigError(f"Expected rows of split {options.split} in {options.table}, got {names}. See --split.")
    others = {rows.names[place] for place in set(rows.label[mask].tolist())} - set(head.classes)
    parts = Parts(rows, head.classes, (*head.classes, *in_order(others)), {options.split: mask}, ())
    features = parts.features(options.split, free_memory_bytes())
    return {
        "job": "evaluate",
        "status": "done",
        "head": storage.absolute(options.head),
        "head_sha256": head.sha256,
        "table": storage.absolute(options.table),
        "split": options.split,
        "contract": head.contract.to_json(),
        "metrics": summarise(observe(head, features, parts.names), int(head.config.get("seed", 0))),
    }
