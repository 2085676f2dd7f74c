"""What became of a head's classes when it was trained again with more of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.heads.artefact import Head
from pipeline.heads.features import Features
from pipeline.heads.metrics import confused
from pipeline.heads.rows import Rows
from pipeline.table import Table, read_manifests

_RESAMPLES = 1000
_NUM_PAIRS = 10

Places = NDArray[np.int64]


def compare(before: Head, after: Head, features: Features, names: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Measure both heads on the same rows.

    Args:
        before: The head that there was.
        after: The one that was trained from it.
        features: Rows that neither learned from; ``y`` are places in ``names``.
        names: The classes of ``after``, then labels that it doesn't know.
        seed: Of the bootstrap.

    Returns:
        As plain JSON values: ``old_classes``, ``new_classes`` and ``dropped_classes``; ``old_rows`` (rows of old
        classes), ``old_top1_before`` and ``old_top1_after`` (accuracy on them), ``change`` and its 95 % interval
        ``change_interval`` (paired bootstrap); ``new_rows`` and ``new_top1``; ``old_as_new`` and ``new_as_old``, how
        many rows of the ones are taken for the others now, and the most frequent pairs; ``per_class`` with support, and
        accuracy before and after.
    """
    everything = [*names, *(name for name in before.classes if name not in set(names))]
    place = {name: i for i, name in enumerate(everything)}
    predicted = {"before": _predicted(before, features, place), "after": _predicted(after, features, place)}
    true = features.y
    old_names = set(before.classes)
    is_old = np.asarray([name in old_names for name in everything], bool)
    is_new = np.asarray([name in set(after.classes) - old_names for name in everything], bool)
    old, new = is_old[true], is_new[true]
    right = {name: places == true for name, places in predicted.items()}
    change = right["after"][old].astype(np.int64) - right["before"][old]
    return {
        "old_classes": list(before.classes),
        "new_classes": [name for name in after.classes if name not in old_names],
        "dropped_classes": [name for name in before.classes if name not in set(after.classes)],
        "old_rows": int(old.sum()),
        "old_top1_before": _mean(right["before"][old]),
        "old_top1_after": _mean(right["after"][old]),
        "change": _mean(change),
        "change_interval": _interval(change, seed),
        "new_rows": int(new.sum()),
        "new_top1": _mean(right["after"][new]),
        "old_as_new": _pairs(true, predicted["after"], old & is_new[predicted["after"]], everything),
        "new_as_old": _pairs(true, predicted["after"], new & is_old[predicted["after"]], everything),
        "per_class": {
            name: {
                "support": int((of := true == place[name]).sum()),
                "before": _mean(right["before"][of]) if name in old_names else None,
                "after": _mean(right["after"][of]),
            }
            for name in after.classes
        },
    }


def saved(before: Head, rows: Rows) -> dict[str, Any]:
    """Tell what was not done again, since the table has kept it.

    Args:
        before: The head that there was; it knows how many rows its table had.
        rows: The table now.

    Returns:
        As plain JSON values: ``images`` in the table, ``images_before``, ``images_new``, ``not_embedded_again`` and
        ``seconds_saved``, what those took by the table's manifests; None where the old head was trained on another
        table, or nothing is recorded.
    """
    known = before.config.get("table_rows") if before.config.get("table") == rows.table.uri else None
    kept = None if known is None else min(int(known), len(rows))
    rate = _images_per_s(rows.table)
    return {
        "images": len(rows),
        "images_before": known,
        "images_new": None if kept is None else len(rows) - kept,
        "not_embedded_again": kept,
        "seconds_saved": round(kept / rate, 1) if kept is not None and rate else None,
    }


def _images_per_s(table: Table) -> float | None:
    """Return the mean rate of the runs that filled a table, by its manifests, weighted by their images."""
    images, seconds = 0, 0.0
    for manifest in read_manifests(table):
        rate = manifest.get("completed_by", {}).get("images_per_s")
        count = manifest.get("ledger", {}).get("embedded", 0) - manifest.get("ledger", {}).get("reused", 0)
        if rate and count > 0:
            images, seconds = images + count, seconds + count / rate
    return images / seconds if seconds else None


def _predicted(head: Head, features: Features, place: dict[str, int]) -> Places:
    """Return the predicted class of each row, by its place among all names."""
    of_class = np.asarray([place[name] for name in head.classes], np.int64)
    parts = [of_class[head.scores(X).argmax(axis=1)] for X, _ in features.blocks()]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _interval(change: Places, seed: int) -> list[float] | None:
    """Return the 95 % interval of a mean of -1, 0 and 1, by the percentile bootstrap."""
    if not len(change):
        return None
    shares = np.bincount(change + 1, minlength=3) / len(change)
    drawn = np.random.default_rng(seed).multinomial(len(change), shares, size=_RESAMPLES)
    bounds = np.percentile((drawn[:, 2] - drawn[:, 0]) / len(change), [2.5, 97.5])
    return [float(bound) for bound in bounds]


def _pairs(true: Places, predicted: Places, mask: NDArray[np.bool_], names: Sequence[str]) -> dict[str, Any]:
    return {"count": int(mask.sum()), "pairs": confused(true[mask], predicted[mask], names, _NUM_PAIRS)}
