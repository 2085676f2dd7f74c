"""The MLP head: linear maps with leaky rectifiers between, trained by PyTorch on standardised features."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from pipeline.heads.artefact import Head
from pipeline.heads.compute import Standardised
from pipeline.heads.models import LEAKY_SLOPE, Layers
from pipeline.heads.task import FitTask

#: AdamW's own default.
_WEIGHT_DECAY = 1e-2


def fit_mlp(task: FitTask) -> Head:
    """Train until the validation accuracy has not improved for ``patience`` epochs, and keep the best epoch.

    Ties are broken by the lower validation loss. Without validation rows all epochs run and the last one is kept.
    """
    options = task.options
    mean, scale = task.moments.standardisation()
    prepare = Standardised(task.train, mean, scale, task.device, torch.float32)
    validation = Standardised(task.validation, mean, scale, task.device, torch.float32)
    history: list[dict[str, Any]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = _build(task.train.embedding_dim, options.hidden, len(task.classes)).to(task.device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=_WEIGHT_DECAY)
        best, best_score, best_epoch = copy.deepcopy(network.state_dict()), (-1.0, 0.0), 0
        for epoch in range(1, options.epochs + 1):
            total = 0.0
            for X, y in task.train.shuffled(options.batch_size, options.seed + epoch):
                optimizer.zero_grad()
                places = torch.from_numpy(y).to(task.device)
                loss = nn.functional.cross_entropy(network(prepare.standardise(X)), places)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(loss.detach()) * len(y)
            accuracy, validation_loss = _score(network, validation, len(task.classes))
            history.append(
                {
                    "epoch": epoch,
                    "loss": total / len(task.train),
                    "validation_top1": accuracy,
                    "validation_loss": validation_loss,
                }
            )
            if (accuracy, -validation_loss) > best_score or not len(task.validation):
                best, best_score, best_epoch = copy.deepcopy(network.state_dict()), (accuracy, -validation_loss), epoch
            elif epoch - best_epoch >= options.patience:
                break
    network.load_state_dict(best)
    layers = tuple(
        (module.weight.detach().cpu().numpy().copy(), module.bias.detach().cpu().numpy().copy())
        for module in network
        if isinstance(module, nn.Linear)
    )
    config = {
        "hidden": list(options.hidden),
        "epochs": options.epochs,
        "best_epoch": best_epoch,
        "batch_size": options.batch_size,
        "patience": options.patience,
        "optimizer": "AdamW",
        "learning_rate": options.learning_rate,
        "weight_decay": _WEIGHT_DECAY,
        "history": history,
    }
    return Head("mlp", task.classes, task.contract, Layers(mean, scale, layers), config=config)


def _build(features: int, hidden: tuple[int, ...], num_classes: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    for wide, narrow in pairwise((features, *hidden, num_classes)):
        modules += [nn.Linear(wide, narrow), nn.LeakyReLU(LEAKY_SLOPE)]
    return nn.Sequential(*modules[:-1])


@torch.no_grad()
def _score(network: nn.Module, rows: Standardised, num_classes: int) -> tuple[float, float]:
    """Return the accuracy on all rows and the mean loss on those of a known class."""
    correct, loss, known = 0, 0.0, 0
    for X, y in rows.blocks():
        logits = network(X)
        correct += int((logits.argmax(1) == y).sum())
        of = y < num_classes
        loss += float(nn.functional.cross_entropy(logits[of], y[of], reduction="sum"))
        known += int(of.sum())
    return correct / max(len(rows), 1), loss / max(known, 1)
