"""The MLP head: linear maps with leaky rectifiers between, trained by PyTorch on standardised features."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.contract import FeatureContract
from pipeline.heads.artefact import LEAKY_SLOPE, Head, standardisation
from pipeline.heads.data import LabelledFeatures, class_indices

#: AdamW's own default.
_WEIGHT_DECAY = 1e-2


def train_mlp(
    train: LabelledFeatures,
    validation: LabelledFeatures,
    contract: FeatureContract,
    classes: tuple[str, ...],
    *,
    hidden: tuple[int, ...],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    patience: int,
    seed: int,
) -> Head:
    """Train until the validation accuracy has not improved for ``patience`` epochs, and keep the best epoch.

    Ties are broken by the lower validation loss. Without validation rows all epochs run and the last one is kept.
    """
    mean, scale = standardisation(train.X)
    X, X_validation = (torch.from_numpy((part.X - mean) / scale) for part in (train, validation))
    y, y_validation = (torch.from_numpy(class_indices(part.labels, classes)) for part in (train, validation))
    known = y_validation >= 0
    X_validation, y_validation = X_validation[known], y_validation[known]
    history: list[dict[str, Any]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build(X.shape[1], hidden, len(classes))
        optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=_WEIGHT_DECAY)
        best, best_score, best_epoch = copy.deepcopy(network.state_dict()), (-1.0, 0.0), 0
        for epoch in range(1, epochs + 1):
            loss = _train_epoch(network, optimizer, X, y, batch_size)
            accuracy, validation_loss = _score(network, X_validation, y_validation)
            history.append(
                {"epoch": epoch, "loss": loss, "validation_top1": accuracy, "validation_loss": validation_loss}
            )
            if (accuracy, -validation_loss) > best_score or not len(y_validation):
                best, best_score, best_epoch = copy.deepcopy(network.state_dict()), (accuracy, -validation_loss), epoch
            elif epoch - best_epoch >= patience:
                break
    network.load_state_dict(best)
    layers = tuple(
        (module.weight.detach().numpy().copy(), module.bias.detach().numpy().copy())
        for module in network
        if isinstance(module, nn.Linear)
    )
    config = {
        "hidden": list(hidden),
        "epochs": epochs,
        "best_epoch": best_epoch,
        "batch_size": batch_size,
        "patience": patience,
        "optimizer": "AdamW",
        "learning_rate": learning_rate,
        "weight_decay": _WEIGHT_DECAY,
        "history": history,
    }
    return Head("mlp", classes, contract, mean, scale, layers, config)


def _build(features: int, hidden: tuple[int, ...], num_classes: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    for wide, narrow in pairwise((features, *hidden, num_classes)):
        modules += [nn.Linear(wide, narrow), nn.LeakyReLU(LEAKY_SLOPE)]
    return nn.Sequential(*modules[:-1])


def _train_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, X: torch.Tensor, y: torch.Tensor, batch_size: int
) -> float:
    total = 0.0
    for rows in torch.split(torch.randperm(len(y)), batch_size):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(X[rows]), y[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(loss.detach()) * len(rows)
    return total / len(y)


@torch.no_grad()
def _score(network: nn.Module, X: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    if not len(y):
        return 0.0, 0.0
    logits = network(X)
    accuracy = float(np.mean((logits.argmax(1) == y).numpy()))
    return accuracy, float(nn.functional.cross_entropy(logits, y))
