"""How far a run is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment, in images.

    Args:
        planned: Of the whole run.
        done: Embedded or rejected, those of earlier runs included.
        rejected: Rejects in committed units.
        new: Embedded or rejected by this run.
        elapsed_s: Seconds since this run's work began.
    """

    planned: int
    done: int
    rejected: int
    new: int
    elapsed_s: float


ProgressCallback = Callable[[Progress], None]
