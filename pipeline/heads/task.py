"""One fit: which rows, which classes, how."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from pipeline.contract import FeatureContract
from pipeline.heads.artefact import Head
from pipeline.heads.checkpoint import Checkpoint, NoCheckpoint
from pipeline.heads.compute import pick_device
from pipeline.heads.features import Features
from pipeline.heads.group import Alone, Group
from pipeline.heads.moments import Moments, Spread, measure, spread
from pipeline.heads.options import HeadOptions
from pipeline.heads.subset import Subset


@dataclass(frozen=True)
class FitTask:
    """What a head is fitted to.

    Args:
        options: How.
        contract: What the features are.
        classes: K names; the training rows have no others.
        train: Rows to learn from, or this process's share of them.
        validation: Rows to choose by; ``y`` beyond K is a class that the head can't know. May be empty.
        group: Who trains.
        start: A head to start from; unset: from nothing.
        checkpoint: Where it leaves what it has reached.
        subset: Which of the table's training rows ``train`` has, for workers that read theirs themselves; unset: all.
    """

    options: HeadOptions
    contract: FeatureContract
    classes: tuple[str, ...]
    train: Features
    validation: Features
    group: Group = field(default_factory=Alone)
    start: Head | None = None
    checkpoint: Checkpoint = field(default_factory=NoCheckpoint)
    subset: Subset | None = None
    _spread: Spread | None = field(default=None, init=False, repr=False, compare=False)
    _moments: Moments | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return pick_device(self.options.device)

    @property
    def spread(self) -> Spread:
        """Mean and deviation of the training rows: one pass, when first asked for."""
        if self._spread is None:  # no cached_property: before Python 3.12 its lock is that of all tasks
            made = spread(self.train, len(self.classes), self.group, self.device)
            object.__setattr__(self, "_spread", made)
            return made
        return self._spread

    @property
    def moments(self) -> Moments:
        """Sums over the training rows: one pass, when first asked for."""
        if self._moments is None:
            made = measure(self.train, len(self.classes), self.group, self.device)
            object.__setattr__(self, "_moments", made)
            return made
        return self._moments
