"""The logistic head: C swept on validation as in the linear-probe protocol of CLIP."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.heads import logistic
from pipeline.heads.artefact import Head
from pipeline.heads.by_sample import fit_by_sample
from pipeline.heads.checkpoint import State
from pipeline.heads.compute import Standardised, fast_dtype
from pipeline.heads.coordinates import correlation
from pipeline.heads.features import Features, MemoryFeatures, StreamedFeatures, Values
from pipeline.heads.logistic import Fit
from pipeline.heads.models import Layers, on_classes
from pipeline.heads.objective import Weights
from pipeline.heads.span import span_of
from pipeline.heads.sweep_state import Reached, to_state
from pipeline.heads.task import FitTask

logger = logging.getLogger(__name__)

#: Logarithms (base 10) of C: the first ones tried, and the least step between two when the interval around the best is
#: halved again and again: Radford et al. 2021, appendix A.3 (1e-6 to 1e6, a parametric binary search down to 8 a
#: decade).
_FIRST_LOGS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
_LAST_STEP = 1 / 8
#: First values of C in a row that are no better than the best before which the larger ones aren't tried: accuracy has
#: one peak, as the binary search takes for granted, too, and large values take the most iterations.
_PAST_THE_PEAK = 2
#: Multiply-adds of one product with all rows from which the faster arithmetic pays: some milliseconds.
_FAST_PAYS = 2**28
#: Rows of a sample per feature from which its covariance is good enough for coordinates.
_ROWS_PER_FEATURE = 4
#: Names of the training's state in the checkpoint: while C is chosen, and once it is, on all of the streamed rows.
_SWEEP, _ALL_ROWS = "logistic sweep", "logistic on all rows"


def fit_logistic(task: FitTask) -> Head:
    """Fit at one C, or at each C of the sweep, and keep the best."""
    if isinstance(task.train, StreamedFeatures):
        return _fit_streamed(task)
    return _Sweep(task, _SWEEP).head()


def _fit_streamed(task: FitTask) -> Head:
    """Choose C on as many rows as the memory holds, and fit all rows from the weights there.

    C is the variance of the weights that is expected beforehand, so it doesn't depend on the number of rows.
    """
    sample = replace(task, train=_sampled(task.train, task), validation=_sampled(task.validation, task))
    sample_rows, num_rows = sample.spread.num_rows, task.spread.num_rows
    if sample_rows == num_rows:
        return _Sweep(sample, _SWEEP).head()
    chosen: dict[str, Any]
    if state := task.checkpoint.load(_ALL_ROWS):
        chosen, starts = state.notes["chosen"], [Reached.of(state, (len(task.classes), task.train.embedding_dim)).point]
    else:
        head = _Sweep(sample, _SWEEP).head(exact=False)
        chosen = {"C": head.config["C"], "sweep": head.config["sweep"], "sample_rows": sample_rows}
        starts = [_weights_of(head, task), None if task.start is None else _weights_of(task.start, task)]
    train = sample.train
    del sample  # with validation rows, which nobody asks any more
    mean, scale, device = task.spread.mean, task.spread.scale, task.device
    D, K = task.train.embedding_dim, len(task.classes)
    rows = Standardised(task.train, mean, scale, device, torch.float32)
    dtype = fast_dtype(device) if sample_rows // task.group.size * D * K >= _FAST_PAYS else torch.float32
    part = Standardised(train, mean, scale, device, dtype)
    enough = sample_rows >= _ROWS_PER_FEATURE * D
    fit = fit_by_sample(
        rows,
        num_rows,
        part,
        sample_rows,
        correlation(part, sample_rows, task.group) if enough else correlation(rows, num_rows, task.group),
        K,
        chosen["C"],
        task.group,
        [start for start in starts if start is not None],
        lambda *point: task.checkpoint.save(
            _ALL_ROWS, lambda: to_state(Reached(C=chosen["C"], point=point), {"chosen": chosen})
        ),
    )
    _warn(fit)
    config = {**chosen, "loss": fit.loss, "iterations": fit.iterations, "passes": fit.passes}
    layers = Layers(mean, scale, ((fit.weight, fit.bias),))
    return Head("logistic", task.classes, task.contract, layers, config=config)


def _sampled(part: Features, task: FitTask) -> Features:
    return part.sample(task.options.seed) if isinstance(part, StreamedFeatures) else part


def _warn(fit: Fit) -> None:
    if not fit.converged:
        logger.warning("The regression at C = %g stopped at %d iterations.", fit.C, fit.iterations)


class _Sweep:
    """The fits so far, each started from the one with the nearest C.

    Args:
        task: What is fitted, in memory.
        stage: Name of its state in the checkpoint, which it goes on from.
    """

    def __init__(self, task: FitTask, stage: str) -> None:
        self._task, self._stage = task, stage
        self._mean, self._scale = task.spread.mean, task.spread.scale
        D = task.train.embedding_dim
        self._span = span_of(task)
        self._rows = self._prepared(task.train)
        shape = len(task.classes), self._rows.features.embedding_dim
        self._reached = Reached.of(task.checkpoint.load(stage), shape)
        # By what all processes know alike, since they have to take the same steps.
        self._small = task.spread.num_rows // task.group.size * D * len(task.classes) < _FAST_PAYS
        if not self._small:
            self._rows.become(fast_dtype(task.device))
        if self._span is None:
            self._correlation = correlation(self._rows, task.spread.num_rows, task.group)
        else:
            self._correlation = np.diag(self._span.squares / task.spread.num_rows)
        self._fits, self._accuracy = self._reached.fits, self._reached.accuracy

    def _standardise(self, X: Values) -> NDArray[np.float64]:
        return (X.astype(np.float64) - self._mean) / self._scale

    def _prepared(self, features: Features) -> Standardised:
        """Return rows in the coordinates of the fit, in float32."""
        if self._span is None:
            return Standardised(features, self._mean, self._scale, self._task.device, torch.float32)
        parts = [self._span.coordinates(self._standardise(X)) for X, _ in features.blocks()]
        R = len(self._span.basis)
        Z = MemoryFeatures(np.concatenate(parts) if parts else np.zeros((0, R), np.float32), features.y)
        return Standardised(Z, np.zeros(R, np.float32), np.ones(R, np.float32), self._task.device, torch.float32)

    def head(self, exact: bool = True) -> Head:
        """Return the head of the best C, fitted to the end where ``exact``."""
        task = self._task
        validation = self._prepared(task.validation)
        if task.options.C is not None or not len(task.validation):
            best = task.options.C or 1.0
        else:
            best = self._search(validation)
        fit = self._fit(best, exact)
        _warn(fit)
        sweep: list[dict[str, Any]] = [
            {
                "C": C,
                "validation_top1": self._accuracy[C],
                "iterations": self._fits[C].iterations,
                "converged": self._fits[C].converged,
            }
            for C in sorted(self._accuracy)
        ]
        config = {"C": best, "loss": fit.loss, "iterations": fit.iterations, "passes": fit.passes, "sweep": sweep}
        weight = fit.weight if self._span is None else self._span.weights(fit.weight)
        layers = Layers(self._mean, self._scale, ((weight, fit.bias),))
        return Head("logistic", task.classes, task.contract, layers, config=config)

    def _search(self, validation: Standardised) -> float:
        worse, best_so_far = 0, -1.0  # of these values, also where a checkpoint knows others
        for log in _FIRST_LOGS:
            accuracy = self._score(10.0**log, validation)
            worse = 0 if accuracy > best_so_far else worse + 1
            best_so_far = max(best_so_far, accuracy)
            if worse == _PAST_THE_PEAK:
                break
        step = (_FIRST_LOGS[1] - _FIRST_LOGS[0]) / 2
        while step >= _LAST_STEP:
            best = np.log10(self._best())
            for log in (best - step, best + step):
                if _FIRST_LOGS[0] <= log <= _FIRST_LOGS[-1]:
                    self._score(float(10.0**log), validation)
            step /= 2
        return self._best()

    def _best(self) -> float:
        """Return the C of the best accuracy, the smallest of them where equal."""
        return min(self._accuracy, key=lambda C: (-self._accuracy[C], C))

    def _score(self, C: float, validation: Standardised) -> float:
        if C in self._accuracy:
            return self._accuracy[C]
        fit = self._fit(C)
        weight, bias = (torch.from_numpy(part).to(validation.device) for part in (fit.weight, fit.bias))
        correct = 0
        for X, y in validation.blocks():
            correct += int(((X @ weight.T + bias).argmax(dim=1) == y).sum())
        self._accuracy[C] = correct / len(validation)
        logger.info("C = %.3g: validation top-1 %.4f (%d passes).", C, self._accuracy[C], fit.passes)
        return self._accuracy[C]

    def _fit(self, C: float, exact: bool = False) -> Fit:
        task = self._task
        last = None
        if exact and self._rows.dtype == torch.float32:
            last = self._rows
        elif exact:
            last = replace(self._prepared(task.train), keep=False)  # a few passes, in which memory counts for more
        self._fits[C] = fit = logistic.fit(
            self._rows,
            self._correlation,
            task.spread.num_rows,
            len(task.classes),
            C,
            task.group,
            self._start(C),
            last,
            logistic.EXACT_DECREASE if self._small else logistic.FAST_DECREASE,
            logistic.LAST_ITERATIONS,
            lambda *point: task.checkpoint.save(self._stage, lambda: self._state(C, point)),
        )
        return fit

    def _state(self, C: float, point: tuple[Weights, Weights]) -> State:
        return to_state(Reached(self._fits, self._accuracy, C, point), {})

    def _start(self, C: float) -> tuple[Weights, Weights] | None:
        if self._reached.C == C:
            self._reached.C = None
            return self._reached.point
        if self._fits:
            nearest = self._fits[min(self._fits, key=lambda other: abs(np.log(other / C)))]
            return nearest.weight, nearest.bias
        start = None if self._task.start is None else _weights_of(self._task.start, self._task)
        if start is None or self._span is None:
            return start
        return self._span.coordinates(start[0]), start[1]


def _weights_of(head: Head, task: FitTask) -> tuple[Weights, Weights] | None:
    """Return a linear head's weights on a task's standardised features and classes; new classes get zeros."""
    if not isinstance(head.model, Layers) or len(head.model.layers) != 1:
        return None
    raw, offset = on_classes(*_on_raw_features(head.model), head.classes, task.classes)
    return raw * task.spread.scale, offset + raw @ task.spread.mean


def _on_raw_features(model: Layers) -> tuple[Weights, Weights]:
    """Return the weight and bias of a linear model without its standardisation."""
    weight, bias = model.layers[0]
    raw: Weights = weight / model.scale
    offset: Weights = bias - raw @ model.mean
    return raw, offset
