"""What a logistic training has reached, for its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.heads.checkpoint import State
from pipeline.heads.logistic import Fit
from pipeline.heads.models import Tensors
from pipeline.heads.objective import Weights

_NUMBERS = ("C", "loss", "iterations", "passes", "converged")


@dataclass
class Reached:
    """The fits that are done, and the one at work.

    Args:
        fits: By C.
        accuracy: On validation, by C, of those that were scored.
        C: Of the fit at work; None: there is none.
        point: Its weight and bias.
    """

    fits: dict[float, Fit] = field(default_factory=dict)
    accuracy: dict[float, float] = field(default_factory=dict)
    C: float | None = None
    point: tuple[Weights, Weights] | None = None

    @classmethod
    def of(cls, state: State | None, shape: tuple[int, int]) -> Reached:
        """Read what `to_state` made; nothing of None, and of weights of another shape than this.

        In the span of few rows weights are shorter, and whether they are fitted there is not the training's alone.
        """
        if state is None or state.tensors["weight"].shape != shape:
            return cls()
        tensors, notes = state.tensors, state.notes
        fits = [
            Fit(weight=_floats(tensors, f"{place}.weight"), bias=_floats(tensors, f"{place}.bias"), **numbers)
            for place, numbers in enumerate(notes["fits"])
        ]
        point = _floats(tensors, "weight"), _floats(tensors, "bias")
        return cls({fit.C: fit for fit in fits}, dict(notes["accuracy"]), notes["C"], point)


def to_state(reached: Reached, notes: dict[str, Any]) -> State:
    """Return the state of a training at work, with further notes."""
    assert reached.point is not None
    tensors: Tensors = dict(zip(("weight", "bias"), reached.point, strict=True))
    for place, fit in enumerate(reached.fits.values()):
        tensors |= {f"{place}.weight": fit.weight, f"{place}.bias": fit.bias}
    fits = [{name: getattr(fit, name) for name in _NUMBERS} for fit in reached.fits.values()]
    return State(tensors, {**notes, "C": reached.C, "fits": fits, "accuracy": list(reached.accuracy.items())})


def _floats(tensors: Tensors, name: str) -> Weights:
    return np.asarray(tensors[name], np.float32)
