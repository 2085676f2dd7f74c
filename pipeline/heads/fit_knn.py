"""The k-nearest-neighbours head: nothing to fit, the training vectors are kept."""

from __future__ import annotations

import numpy as np

from pipeline.heads.artefact import Head
from pipeline.heads.device_neighbours import DeviceNeighbours
from pipeline.heads.neighbours import Neighbours, normalised
from pipeline.heads.task import FitTask


def fit_knn(task: FitTask) -> Head:
    """Keep all training vectors, of length 1, in float16; what is asked of the head here runs on the task's device."""
    bank = np.empty((len(task.train), task.train.embedding_dim), np.float16)
    start = 0
    for X, _ in task.train.blocks():
        bank[start : start + len(X)] = normalised(X)
        start += len(X)
    options = task.options
    model = Neighbours(bank, task.train.y.astype(np.int32), options.k, options.tau, len(task.classes))
    if task.device.type == "cuda":
        model = DeviceNeighbours.of(model, task.device)
    return Head("knn", task.classes, task.contract, model, config={"k": options.k, "tau": options.tau})
