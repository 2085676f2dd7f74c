"""Train a head on a table, validate it honestly, and evaluate it again later."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, PositiveInt

from pipeline import storage
from pipeline.contract import require_same_features
from pipeline.errors import ConfigError
from pipeline.heads.artefact import Head, load_head, save_head
from pipeline.heads.data import LabelledFeatures, TableFeatures, carve_validation, read_features
from pipeline.heads.linear import train_logistic
from pipeline.heads.metrics import evaluate_rows
from pipeline.options import Options

logger = logging.getLogger(__name__)

HeadKind = Literal["logistic", "mlp"]


class TrainOptions(Options):
    """Train a classifier head on a table: fit on train, choose on validation, report once on test."""

    table: str = Field(description="Embedding table to learn from; rows without a split count as train.")
    head: str = Field(description="Folder for head.safetensors and head.json; an older head there is replaced.")
    kind: HeadKind = Field("logistic", description="logistic: a linear probe; mlp: hidden layers with LeakyReLU.")
    seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of the validation part, of initialisation and of batch order."
    )
    validation_fraction: float = Field(
        0.2, gt=0, lt=1, description="Share of train that is held out where the table has no validation split (0 to 1)."
    )
    hidden: tuple[PositiveInt, ...] = Field((1024, 512, 256), description="mlp: widths of the hidden layers.")
    epochs: int = Field(100, ge=1, description="mlp: passes over the training rows, at most.")
    patience: int = Field(10, ge=1, description="mlp: epochs without a better validation accuracy before it stops.")
    batch_size: int = Field(128, ge=1, description="mlp: rows in one step.")
    learning_rate: float = Field(3e-4, gt=0, le=1, description="mlp: step size of AdamW.")
    table_storage_options: dict[str, Any] = Field(
        {}, description="Of the table's and the head's file system (fsspec), as JSON; no credentials."
    )
    verbose: bool = Field(False, description="Show the traceback of a failure.")


class EvaluateOptions(Options):
    """Measure a head on one split of a table."""

    table: str = Field(description="Embedding table with labels.")
    head: str = Field(description="Folder of the head.")
    split: str = Field("test", description="Rows to measure on: train, validation or test.")
    table_storage_options: dict[str, Any] = Field(
        {}, description="Of the table's and the head's file system (fsspec), as JSON; no credentials."
    )
    verbose: bool = Field(False, description="Show the traceback of a failure.")


def train(options: TrainOptions) -> dict[str, Any]:
    """Train a head and save it.

    Returns:
        The record: the head's classes, configuration and metrics by split.

    Raises:
        TableError: The table is missing, or has no labels.
        ConfigError: There is nothing to learn: no training rows, or fewer than two classes.
    """
    started = time.perf_counter()
    storage.require_folder(options.head, "--head")
    features = read_features(options.table, options.table_storage_options)
    training, validation, carved = _training_rows(features, options)
    classes = tuple(sorted(set(training.labels)))
    if len(classes) < 2:
        raise ConfigError(
            f"Expected at least 2 classes among the training rows of {options.table}, got "
            f"{len(classes)}: {', '.join(classes) or 'no rows'}. Check the labels and splits."
        )
    logger.info(
        "Training on %d rows, %d classes; choosing on %d validation rows%s.",
        len(training),
        len(classes),
        len(validation),
        f" held out of train by content hash, {options.validation_fraction:g} of each class" if carved else "",
    )
    if options.kind == "logistic":
        head = train_logistic(training, validation, features.contract, classes)
    else:
        from pipeline.heads.mlp import train_mlp  # here, since only this kind needs PyTorch

        head = train_mlp(
            training,
            validation,
            features.contract,
            classes,
            hidden=options.hidden,
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            patience=options.patience,
            seed=options.seed,
        )
    parts = {"train": training, "validation": validation, "test": features.splits.get("test")}
    metrics = {name: evaluate_rows(head, rows) for name, rows in parts.items() if rows is not None and len(rows)}
    config = {**head.config, "seed": options.seed, "validation_from_train": carved, "table": options.table}
    head = replace(head, config=config, metrics=metrics)
    save_head(head, options.head, options.table_storage_options)
    return {
        "job": "train",
        "status": "done",
        "head": storage.absolute(options.head),
        "head_sha256": head.sha256,
        "kind": head.kind,
        "classes": list(classes),
        "contract": head.contract.to_json(),
        "num_unlabelled": features.num_unlabelled,
        "config": config,
        "metrics": metrics,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _training_rows(features: TableFeatures, options: TrainOptions) -> tuple[LabelledFeatures, LabelledFeatures, bool]:
    if "train" not in features.splits:
        names = ", ".join(features.splits)
        raise ConfigError(f"Expected rows of split train in {options.table}, got {names}. Embed a train folder too.")
    training = features.splits["train"]
    if "validation" in features.splits:
        return training, features.splits["validation"], False
    return *carve_validation(training, options.validation_fraction, options.seed), True


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Measure a head on one split of a table.

    Returns:
        The record with ``metrics`` as `pipeline.heads.metrics.evaluate_rows` gives them.

    Raises:
        ContractMismatch: The table's features are not those that the head was trained on.
        ConfigError: The table has no rows of that split.
    """
    head: Head = load_head(options.head, options.table_storage_options)
    features = read_features(options.table, options.table_storage_options)
    require_same_features(
        head.contract, features.contract, f"Head {options.head}", f"Embed the images of {options.table} the same way."
    )
    if options.split not in features.splits:
        names = ", ".join(features.splits)
        raise ConfigError(f"Expected rows of split {options.split} in {options.table}, got {names}. See --split.")
    return {
        "job": "evaluate",
        "status": "done",
        "head": storage.absolute(options.head),
        "head_sha256": head.sha256,
        "table": storage.absolute(options.table),
        "split": options.split,
        "contract": head.contract.to_json(),
        "metrics": evaluate_rows(head, features.splits[options.split]),
    }
