"""What may surprise about a table's labels and splits, in sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.heads.parts import Parts
from pipeline.heads.rows import TRAIN, Rows

#: Names that a sentence lists.
_LISTED = 10


def label_notes(parts: Parts) -> list[str]:
    """Return a sentence for each thing about labels and splits that may surprise."""
    rows = parts.rows
    support = {
        name: np.bincount(rows.label[mask], minlength=len(rows.names))
        for name, mask in parts.masks.items()
        if mask.any()
    }
    notes = [*_unlabelled(rows), *_unused(parts), *_lists(rows)]
    trained = support.pop(TRAIN)
    if (trained == 1).any():
        names = _names(rows, trained == 1)
        notes.append(f"Classes with one training row: {len(names)} of {len(parts.classes)}: {listed(names)}.")
    for part, counts in support.items():
        unknown, missing = (trained == 0) & (counts > 0), (trained > 0) & (counts == 0)
        if unknown.any():
            names, count = _names(rows, unknown), counted(int(counts[unknown].sum()), "row")
            notes.append(
                f"Classes that {part} has and train has not: {len(names)} with {count}, counted as wrong: "
                f"{listed(names)}."
            )
        if missing.any():
            names = _names(rows, missing)
            notes.append(f"Classes without rows in {part}: {len(names)} of {len(parts.classes)}: {listed(names)}.")
    return notes


def counted(count: int, noun: str) -> str:
    """Return ``1 row`` or ``2 rows``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Return the first names with commas between them, and how many more there are."""
    shown = ", ".join(names[:_LISTED])
    return f"{shown} and {len(names) - _LISTED} more" if len(names) > _LISTED else shown


def _unlabelled(rows: Rows) -> list[str]:
    count = int((~rows.labelled).sum())
    empty = f" (an empty one counts as none: {rows.num_empty})" if rows.num_empty else ""
    return [f"Left out for want of a label{empty}: {counted(count, 'row')}."] if count else []


def _unused(parts: Parts) -> list[str]:
    counts = {name: int(parts.rows.of_split(name).sum()) for name in parts.rows.splits if name not in parts.masks}
    return [
        f"Not used, for the splits are train, validation and test: {counted(count, 'row')} of {name}."
        for name, count in counts.items()
        if count
    ]


def _lists(rows: Rows) -> list[str]:
    """Return a warning of labels that are JSON lists, as fields of a tar's samples may be."""
    names = [name for name in rows.names if name.startswith("[") and _is_list(name)]
    if not names:
        return []
    return [
        f"Labels that are lists: {len(names)}, each taken for one class, since images of several labels are not "
        f"supported: {listed(names)}."
    ]


def _is_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False


def _names(rows: Rows, of: NDArray[np.bool_]) -> list[str]:
    return [rows.names[place] for place in np.flatnonzero(of)]
