"""What a head reaches on labelled rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from pipeline.heads.artefact import Head
from pipeline.heads.data import LabelledFeatures, class_indices

TOP_K = 5


def evaluate_rows(head: Head, rows: LabelledFeatures) -> dict[str, Any]:
    """Measure a head.

    A row whose class the head has never seen counts as wrong in every accuracy, and is left out of the log loss, where
    its probability of zero would make everything infinite; ``num_unknown_class`` tells how many there are.

    Returns:
        As plain JSON values: ``num_rows``, ``top1``, ``top5`` (the true class among the five most probable),
        ``macro_f1`` (mean over the classes that have rows or predictions), ``log_loss`` (natural logarithm, mean over
        rows), ``per_class`` with precision, recall, f1 and support, and ``confusion`` with ``classes`` and ``counts``
        (rows true, columns predicted).
    """
    probabilities = head.probabilities(rows.X)
    extra = sorted(set(rows.labels) - set(head.classes))
    classes = [*head.classes, *extra]
    true = class_indices(rows.labels, classes)
    predicted = probabilities.argmax(axis=1)
    known = true < len(head.classes)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP_K]
    precision, recall, f1, support = precision_recall_fscore_support(
        true, predicted, labels=range(len(classes)), zero_division=0.0
    )
    present = (support > 0) | (np.bincount(predicted, minlength=len(classes)) > 0)
    chosen = probabilities[np.flatnonzero(known), true[known]].astype(np.float64)
    losses = -np.log(np.clip(chosen, np.finfo(np.float32).tiny, 1.0))
    return {
        "num_rows": len(rows),
        "num_unknown_class": int((~known).sum()),
        "top1": float((predicted == true).mean()),
        "top5": float((best == true[:, None]).any(axis=1).mean()),
        "macro_f1": float(f1[present].mean()),
        "log_loss": float(losses.mean()) if len(losses) else None,
        "per_class": {
            name: {
                "precision": float(precision[place]),
                "recall": float(recall[place]),
                "f1": float(f1[place]),
                "support": int(support[place]),
            }
            for place, name in enumerate(classes)
        },
        "confusion": {
            "classes": classes,
            "counts": confusion_matrix(true, predicted, labels=range(len(classes))).tolist(),
        },
    }
