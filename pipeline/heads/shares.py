"""A training that several processes do together, each with a share of the rows; and what tells trainings apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from pipeline.heads.artefact import Head
from pipeline.heads.checkpoint import Checkpoint, FolderCheckpoint, NoCheckpoint, digest
from pipeline.heads.group import Group
from pipeline.heads.options import HeadOptions, TrainOptions
from pipeline.heads.parts import VALIDATION, Parts, divide
from pipeline.heads.rows import TRAIN, read_rows_of
from pipeline.heads.subset import Subset
from pipeline.heads.task import FitTask
from pipeline.table import open_table


def share_task(
    options: TrainOptions,
    group: Group,
    memory_bytes: int,
    start: Head | None = None,
    subset: Subset | None = None,
    keep: bool = True,
) -> FitTask:
    """Return what a process of a group fits: a share of the training rows, and all validation rows.

    Args:
        options: The same for all of them.
        group: Who trains.
        memory_bytes: What this process may have for features; the least of the group counts for all, since all must
            hold them or stream them.
        start: A head to start from; unset: from nothing.
        subset: Which of the training rows are shared; unset: all.
        keep: Whether what the training reaches is kept in the head's folder, to go on from.
    """
    parts = divide(read_rows_of(open_table(options.table, options.table_storage_options)), options)
    least = torch.zeros(group.size, dtype=torch.int64)
    least[group.rank] = memory_bytes
    group.add(least)
    memory_bytes = int(least.min())
    chosen = parts if subset is None else _only(parts, subset)
    train, validation = (chosen.features(TRAIN, memory_bytes, group), parts.features(VALIDATION, memory_bytes))
    checkpoint: Checkpoint = NoCheckpoint()
    if keep:
        checkpoint = FolderCheckpoint(
            options.head, lambda: training_key(options, parts, start), options.table_storage_options, group
        )
    return FitTask(options, parts.rows.contract, parts.classes, train, validation, group, start, checkpoint, subset)


def _only(parts: Parts, subset: Subset) -> Parts:
    train = parts.masks[TRAIN].copy()
    train[train] = subset.of(parts)
    return replace(parts, masks={**parts.masks, TRAIN: train})


def training_key(options: HeadOptions, parts: Parts, start: Head | None = None) -> str:
    """Return a digest of what a training's result depends on: the options, and what each row is and is for."""
    named = {name: getattr(options, name) for name in HeadOptions.model_fields if name != "device"}
    description = {
        "options": named,
        "contract": parts.rows.contract.digest,
        "labels": parts.rows.names,
        "start": None if start is None else start.sha256,
        "parts": sorted(parts.masks),
    }
    masks = [np.packbits(parts.masks[name]) for name in sorted(parts.masks)]
    return digest(description, [parts.rows.content, parts.rows.label, *masks])
