"""Heads against what people train otherwise: an MLP in the notebook's loop, a linear probe by scikit-learn.

``python -m benchmarks.heads``: on generated features of the size of Fruits-360 (41,322 training rows of 2,048 values,
81 classes), all in one run. The notebook's loop is timed on some of its steps, and its accuracy after ten epochs found
on ``--accuracy-rows`` of the rows, on which ours is trained once more.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pipeline.contract import FeatureContract
from pipeline.heads import Head, HeadOptions, fit_head
from pipeline.heads.features import MemoryFeatures
from pipeline.heads.models import Layers
from pipeline.heads.task import FitTask

NUM_TRAIN, NUM_VALIDATION, DIM, NUM_CLASSES = 41_322, 13_877, 2048, 81
EPOCHS, TIMED_STEPS = 10, 200
#: Of the Fruits-360 notebook.
BATCH_SIZE, LEARNING_RATE = 40, 5e-5
#: Inverse strength of the penalty at which the two logistic regressions are compared.
C = 0.01
#: Features are a rectified mixture of so many hidden causes, the first ones the loudest; each class is some clouds of
#: those, so wide that they overlap.
_CAUSES, _CLOUDS, _WIDTH, _FLIPPED = 64, 2, 1.6, 0.03


def generate(num_rows: int, seed: int = 0) -> MemoryFeatures:
    """Return features as a network's are: not negative, correlated, of classes that overlap, some labels wrong."""
    random = np.random.default_rng(seed)
    fixed = np.random.default_rng(2**20)  # the same classes for every seed
    clouds = fixed.standard_normal((NUM_CLASSES, _CLOUDS, _CAUSES), np.float32)
    loudness = np.arange(1, _CAUSES + 1, dtype=np.float32)[:, None] ** -0.5
    mixture = loudness * fixed.standard_normal((_CAUSES, DIM), np.float32)
    y = random.integers(0, NUM_CLASSES, num_rows)
    causes = clouds[y, random.integers(0, _CLOUDS, num_rows)]
    causes = causes + np.float32(_WIDTH) * random.standard_normal((num_rows, _CAUSES), np.float32)
    X = causes @ mixture + np.float32(0.5) * random.standard_normal((num_rows, DIM), np.float32)
    flipped = random.random(num_rows) < _FLIPPED
    y[flipped] = random.integers(0, NUM_CLASSES, int(flipped.sum()))
    return MemoryFeatures(np.maximum(X - np.float32(0.3), 0), y)


class Notebook:
    """The training loop of the Fruits-360 notebook, as written: a DataLoader over a TensorDataset, RMSprop, float32."""

    def __init__(self, train: MemoryFeatures, validation: MemoryFeatures, device: str) -> None:
        torch.manual_seed(0)
        self.device = device
        self.network = nn.Sequential(
            *(nn.Linear(DIM, 1024), nn.LeakyReLU(), nn.Linear(1024, 512), nn.LeakyReLU()),
            *(nn.Linear(512, 256), nn.LeakyReLU(), nn.Linear(256, NUM_CLASSES)),
        ).to(device)
        self.optimizer = torch.optim.RMSprop(self.network.parameters(), lr=LEARNING_RATE)
        self.criterion = nn.CrossEntropyLoss()
        self.train, self.validation = (
            DataLoader(
                TensorDataset(torch.from_numpy(np.asarray(part.X)), torch.from_numpy(part.y)), BATCH_SIZE, shuffle=True
            )
            for part in (train, validation)
        )

    def learn(self, most: int | None = None) -> None:
        """Visit all training rows once, or as many batches."""
        self.network.train()
        total, correct = 0.0, 0
        for step, (X, y) in enumerate(self.train):
            if step == most:
                break
            X, y = X.to(self.device), y.to(self.device)
            self.optimizer.zero_grad()
            output = self.network(X)
            loss = self.criterion(output, y)
            loss.backward()
            self.optimizer.step()
            total += loss.item()
            correct += (output.argmax(1) == y).sum().item()

    def validate(self, most: int | None = None) -> float:
        """Return the accuracy on validation rows, or on as many batches."""
        self.network.eval()
        total, correct, rows = 0.0, 0, 0
        with torch.no_grad():
            for step, (X, y) in enumerate(self.validation):
                if step == most:
                    break
                X, y = X.to(self.device), y.to(self.device)
                output = self.network(X)
                total += self.criterion(output, y).item()
                correct += (output.argmax(1) == y).sum().item()
                rows += len(y)
        return correct / rows


def seconds(work: Callable[[], Any]) -> float:
    """Return how long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def notebook_s(train: MemoryFeatures, validation: MemoryFeatures, device: str) -> float:
    """Return what all epochs of the notebook's loop take, by some of its steps."""
    loop = Notebook(train, validation, device)
    loop.learn(20)
    step_s = seconds(lambda: loop.learn(TIMED_STEPS)) / TIMED_STEPS
    validation_step_s = seconds(lambda: loop.validate(TIMED_STEPS)) / TIMED_STEPS
    return EPOCHS * (step_s * len(loop.train) + validation_step_s * len(loop.validation))


def notebook_accuracy(train: MemoryFeatures, validation: MemoryFeatures, device: str) -> float:
    """Return the validation accuracy of the notebook's best epoch."""
    loop, best = Notebook(train, validation, device), 0.0
    for _ in range(EPOCHS):
        loop.learn()
        best = max(best, loop.validate())
    return best


def fit(train: MemoryFeatures, validation: MemoryFeatures, device: str, **options: Any) -> tuple[Head, float]:
    """Return our head, and how long it took."""
    contract = FeatureContract("generated", "00", {"name": "none"}, DIM, "none")
    classes = tuple(map(str, range(NUM_CLASSES)))
    started = time.perf_counter()
    head = fit_head(FitTask(HeadOptions(device=device, **options), contract, classes, train, validation))
    return head, time.perf_counter() - started


def accuracy(head: Head, rows: MemoryFeatures) -> float:
    """Return top-1 accuracy."""
    return float((head.scores(rows.X).argmax(axis=1) == rows.y).mean())


def objective(X: NDArray[np.float32], y: NDArray[np.int64], weight: NDArray[Any], bias: NDArray[Any]) -> float:
    """Return the regression's objective in float64: mean cross-entropy plus |W|² / (2 C N)."""
    total = 0.0
    for start in range(0, len(y), 4096):
        logits = X[start : start + 4096].astype(np.float64) @ weight.T.astype(np.float64) + bias
        logits -= logits.max(axis=1, keepdims=True)
        of_true = logits[np.arange(len(logits)), y[start : start + 4096]]
        total += float((np.log(np.exp(logits).sum(axis=1)) - of_true).sum())
    return (total + float(np.square(weight.astype(np.float64)).sum()) / (2 * C)) / len(y)


def logistic(train: MemoryFeatures, device: str) -> dict[str, Any]:
    """Fit both regressions at one C, and return seconds and objectives."""
    from sklearn.linear_model import LogisticRegression

    none = MemoryFeatures(train.X[:0], train.y[:0])
    head, ours_s = fit(train, none, device, kind="logistic", C=C)
    assert isinstance(head.model, Layers)
    X = (np.asarray(train.X, np.float32) - head.model.mean) / head.model.scale
    theirs = LogisticRegression(C=C, max_iter=1000)
    theirs_s = seconds(lambda: theirs.fit(X, train.y))
    ((weight, bias),) = head.model.layers
    ours_value = objective(X, train.y, weight, bias)
    theirs_value = objective(X, train.y, theirs.coef_, theirs.intercept_)
    return {
        "seconds": ours_s,
        "sklearn_seconds": theirs_s,
        "ratio": theirs_s / ours_s,
        "objective": ours_value,
        "sklearn_objective": theirs_value,
        "relative_difference": (ours_value - theirs_value) / theirs_value,
        "passes": head.config["passes"],
        "sklearn_iterations": int(theirs.n_iter_[0]),
    }


def mlp(train: MemoryFeatures, validation: MemoryFeatures, accuracy_rows: int, device: str) -> dict[str, Any]:
    """Train both MLPs, and return seconds and accuracies."""
    theirs_s = notebook_s(train, validation, device)
    head, ours_s = fit(train, validation, device, kind="mlp", epochs=EPOCHS)
    plain, plain_s = fit(train, validation, device, kind="mlp", epochs=EPOCHS, dropout=0.0)
    fewer = MemoryFeatures(train.X[:accuracy_rows], train.y[:accuracy_rows])
    again = fit(fewer, validation, device, kind="mlp", epochs=EPOCHS)[0] if accuracy_rows < len(train) else head
    return {
        "seconds": ours_s,
        "notebook_seconds": theirs_s,
        "ratio": theirs_s / ours_s,
        "plain_seconds": plain_s,
        "plain_ratio": theirs_s / plain_s,
        "plain_accuracy": accuracy(plain, validation),
        "accuracy": accuracy(head, validation),
        "accuracy_rows": len(fewer),
        "accuracy_of_fewer": accuracy(again, validation),
        "notebook_accuracy_of_fewer": notebook_accuracy(fewer, validation, device),
    }


def _row(name: str, *values: str) -> None:
    print(f"{name:<32}" + "".join(f"{value:>16}" for value in values))


def main() -> None:
    """Measure, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accuracy-rows", type=int, default=8192)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of both MLPs and our regression")
    asked = parser.parse_args()
    if asked.device == "cuda":  # the first call loads libraries and makes a context: not what is compared
        torch.ones((64, 64), device="cuda") @ torch.ones((64, 64), device="cuda")
    train, validation = generate(NUM_TRAIN, 1), generate(NUM_VALIDATION, 2)
    network, regression = mlp(train, validation, asked.accuracy_rows, asked.device), logistic(train, asked.device)
    print(torch.cuda.get_device_name() if asked.device == "cuda" else f"{torch.get_num_threads()} threads")
    print(f"{NUM_TRAIN} x {DIM} features, {NUM_CLASSES} classes, {NUM_VALIDATION} validation rows\n")
    _row(f"MLP, {EPOCHS} epochs", "seconds", "ratio", f"top-1 of {NUM_TRAIN}", f"of {network['accuracy_rows']}")
    their_accuracy = f"{network['notebook_accuracy_of_fewer']:.4f}"
    _row("notebook loop", f"{network['notebook_seconds']:.1f}", "1.0", "", their_accuracy)
    plain = (f"{network['plain_seconds']:.1f}", f"{network['plain_ratio']:.1f}", f"{network['plain_accuracy']:.4f}")
    _row("the same network (--dropout 0)", *plain, "")
    accuracies = (f"{network[name]:.4f}" for name in ("accuracy", "accuracy_of_fewer"))
    _row("jobs.train --kind mlp, as it is", f"{network['seconds']:.1f}", f"{network['ratio']:.1f}", *accuracies)
    print()
    _row(f"logistic regression, C = {C}", "seconds", "ratio", "objective", "passes")
    theirs = (f"{regression['sklearn_objective']:.8f}", str(regression["sklearn_iterations"]))
    _row("scikit-learn", f"{regression['sklearn_seconds']:.1f}", "1.0", *theirs)
    ours = (f"{regression['objective']:.8f}", str(regression["passes"]))
    _row("jobs.train", f"{regression['seconds']:.1f}", f"{regression['ratio']:.1f}", *ours)
    print(f"relative difference of the objectives: {regression['relative_difference']:+.1e}")
    asked.output.mkdir(parents=True, exist_ok=True)
    name = "heads.json" if asked.device == "cpu" else "heads-cuda.json"
    (asked.output / name).write_text(json.dumps({"mlp": network, "logistic": regression}, indent=1))


if __name__ == "__main__":
    main()
