"""The MLP head: linear maps with leaky rectifiers between, trained by PyTorch on standardised features."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.heads.artefact import Head
from pipeline.heads.batches import Batches
from pipeline.heads.checkpoint import State
from pipeline.heads.compute import Standardised, fast_dtype
from pipeline.heads.group import Group
from pipeline.heads.models import Layers, on_classes
from pipeline.heads.moments import Spread
from pipeline.heads.network import Loss, Network
from pipeline.heads.options import HeadOptions
from pipeline.heads.task import FitTask

logger = logging.getLogger(__name__)

#: Steps of an epoch that a batch size is chosen for, where none is asked for, and the bounds of that size: small ones
#: learn more in an epoch of few rows, large ones are computed faster.
_STEPS, _SMALLEST_BATCH, _LARGEST_BATCH = 48, 32, 1024
#: Decay of the optimizers' averages: AdamW's own defaults (Loshchilov and Hutter 2019). PyTorch has one kernel for all
#: of an AdamW step, also on CPUs, and none for RMSprop (Hinton 2012), which is Adam without the average of gradients
#: but for the correction of its first steps.
_BETAS = {"adamw": (0.9, 0.999), "rmsprop": (0.0, 0.99)}
#: Step sizes where none is asked for, of batches of up to so many rows; of larger ones, more by the root. See
#: docs/performance.md for what was tried.
_ROWS_OF_A_STEP = 512
_LEARNING_RATE = {"adamw": 1e-3, "rmsprop": 5e-4}
#: Name of the training's state in the checkpoint.
_STAGE = "mlp"


def fit_mlp(task: FitTask) -> Head:
    """Train until the validation accuracy has not improved for ``patience`` epochs, and keep the best epoch.

    Ties are broken by the lower validation loss. Without validation rows all epochs run and the last one is kept.
    """
    options = task.options
    measured = task.spread
    older = _older(task)
    if older is not None:  # whose first layer was trained on features with its own standardisation
        measured = replace(measured, mean=older.mean, scale=older.scale)
    training = _Training(task, measured)
    if older is not None:
        training.network.load([(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias in older.layers])
    if state := task.checkpoint.load(_STAGE):
        training.resume(state)
    while not training.done:
        training.run_epoch()
        task.checkpoint.save(_STAGE, training.state)
    training.take_best()
    config = {
        "hidden": list(options.hidden),
        "epochs": options.epochs,
        "best_epoch": training.progress.best_epoch,
        "batch_size": training.batch_size,
        "patience": options.patience,
        "optimizer": options.optimizer,
        "learning_rate": training.learning_rate,
        "weight_decay": options.weight_decay,
        "dropout": options.dropout,
        "label_smoothing": options.label_smoothing,
        "class_weights": options.class_weights,
        "history": training.progress.history,
    }
    layers = Layers(measured.mean, measured.scale, training.network.layers())
    return Head("mlp", task.classes, task.contract, layers, config=config)


def _older(task: FitTask) -> Layers | None:
    """Return the layers to start from, on this task's classes: of the head to start from, if it is of this kind."""
    if task.start is None:
        return None
    model, widths = task.start.model, list(task.options.hidden)
    if task.start.kind != "mlp" or not isinstance(model, Layers) or [len(b) for _, b in model.layers[:-1]] != widths:
        logger.warning(
            "Expected an mlp of --hidden %s to start from, got a head of kind %s%s: starting from nothing.",
            ",".join(map(str, widths)),
            task.start.kind,
            "" if not isinstance(model, Layers) else f" with layers of {[len(bias) for _, bias in model.layers]}",
        )
        return None
    last = on_classes(*model.layers[-1], task.start.classes, task.classes)
    return Layers(model.mean, model.scale, (*model.layers[:-1], last))


@dataclass
class _Progress:
    """How far a training is: what a checkpoint holds besides tensors."""

    epoch: int = 0
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_loss: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


class _Training:
    """A network on its way, epoch by epoch."""

    def __init__(self, task: FitTask, measured: Spread) -> None:
        options, device, dtype = task.options, task.device, fast_dtype(task.device)
        self._options, self._group = options, task.group
        self.batch_size = options.batch_size or _batch_size(measured.num_rows)
        self.learning_rate = options.learning_rate or _learning_rate(options.optimizer, self.batch_size)
        self.progress = _Progress()
        train, validation = (
            Standardised(features, measured.mean, measured.scale, device, dtype)
            for features in (task.train, task.validation)
        )
        self._batches = Batches(train, self.batch_size, options.seed, task.group)
        self._validation, self._num_rows = validation, measured.num_rows
        self._loss = Loss(_class_weights(options, measured.class_counts, device), options.label_smoothing)
        widths = (task.train.embedding_dim, *options.hidden, len(task.classes))
        self.network = Network(widths, options.dropout, device, dtype)
        self.network.initialise(options.seed)
        self._best = self.network.theta.clone()
        self._optimizer = torch.optim.AdamW(
            [self.network.theta],
            lr=self.learning_rate,
            betas=_BETAS[options.optimizer],
            weight_decay=options.weight_decay,
            fused=True,
        )

    @property
    def done(self) -> bool:
        """Whether all epochs have run, or the last ones were no better."""
        at, options = self.progress, self._options
        stuck = bool(len(self._validation)) and at.epoch - at.best_epoch >= options.patience
        return at.epoch >= options.epochs or stuck

    def run_epoch(self) -> None:
        """Visit all rows once, and the validation rows."""
        at = self.progress
        at.epoch += 1
        loss = self._learn()
        accuracy, validation_loss = _score(self.network, self._validation, self._group)
        at.history.append(
            {"epoch": at.epoch, "loss": loss, "validation_top1": accuracy, "validation_loss": validation_loss}
        )
        if (accuracy, -validation_loss) > (at.best_accuracy, -at.best_loss) or not len(self._validation):
            at.best_epoch, at.best_accuracy, at.best_loss = at.epoch, accuracy, validation_loss
            self._best.copy_(self.network.theta)

    def _learn(self) -> float:
        """Visit all rows once, and return their mean loss."""
        network, device = self.network, self.network.device
        random = torch.Generator(device).manual_seed(self._options.seed * 2**20 + self.progress.epoch)
        total, rows = torch.zeros((), device=device), torch.zeros((), device=device)
        total_steps = self._options.epochs * self._batches.steps
        first = (self.progress.epoch - 1) * self._batches.steps
        for step, (X, y) in enumerate(self._batches.epoch(self.progress.epoch), start=first):
            # Down to nothing in a straight line: as good as a cosine, and a training that is cut short has learnt more.
            self._optimizer.param_groups[0]["lr"] = self.learning_rate * (1 - step / total_steps)
            weight = self._loss.weight(y)
            self._group.add(weight)
            total += network.differentiate(X, y, self._loss, weight, random)
            rows += weight
            self._group.add(network.gradient)
            self._optimizer.step()
            network.refresh()
        self._group.add(total)
        return float(total / rows)

    def take_best(self) -> None:
        """Go back to the best epoch."""
        self.network.theta.copy_(self._best)

    def state(self) -> State:
        """Return what `resume` needs."""
        tensors = {"theta": self.network.theta, "best": self._best}
        for name, value in self._optimizer.state[self.network.theta].items():
            tensors[f"optimizer.{name}"] = value
        return State({name: value.cpu().numpy() for name, value in tensors.items()}, vars(self.progress))

    def resume(self, state: State) -> None:
        """Go on from where another training with the same options and rows was."""
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.tensors.items()}
        self.network.theta.copy_(tensors.pop("theta"))
        self.network.refresh()
        self._best.copy_(tensors.pop("best"))
        averages = {name.removeprefix("optimizer."): value for name, value in tensors.items()}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": {0: averages}, "param_groups": groups})
        self.progress = _Progress(**state.notes)


def _batch_size(num_rows: int) -> int:
    wanted = 2 ** round(np.log2(max(1, num_rows / _STEPS)))
    return int(min(max(wanted, _SMALLEST_BATCH), _LARGEST_BATCH))


def _learning_rate(optimizer: str, batch_size: int) -> float:
    return float(_LEARNING_RATE[optimizer] * np.sqrt(max(1.0, batch_size / _ROWS_OF_A_STEP)))


def _class_weights(options: HeadOptions, counts: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor | None:
    """Return N / (K count) for each class, as scikit-learn's ``balanced``."""
    if options.class_weights == "none":
        return None
    weights = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return torch.from_numpy(weights.astype(np.float32)).to(device)


def _score(network: Network, rows: Standardised, group: Group) -> tuple[float, float]:
    """Return the accuracy on all rows and the mean loss on those of a known class; each worker scores some blocks."""
    K = network.widths[-1]
    sums = torch.zeros(3, dtype=torch.float64, device=network.device)
    for number, (X, y) in enumerate(rows.blocks()):
        if number % group.size != group.rank:
            continue
        logits, known = network.logits(X), y < K
        losses = nn.functional.cross_entropy(logits, torch.where(known, y, 0), reduction="none")
        sums += torch.stack([(logits.argmax(1) == y).sum(), (losses * known).sum(), known.sum()])
    group.add(sums)
    correct, loss, count = sums.tolist()
    return correct / max(len(rows), 1), loss / max(count, 1)
