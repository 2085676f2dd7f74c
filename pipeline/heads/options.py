"""What jobs on heads can be asked for."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, PositiveInt

from pipeline.heads.kinds import HeadKind
from pipeline.options import Options


class HeadOptions(Options):
    """How a head is fitted; the same for every part of a table."""

    kind: HeadKind = Field(
        "logistic",
        description="logistic: a linear probe; mlp: hidden layers with LeakyReLU; knn: a vote of the most similar "
        "training images; ridge: linear regression in closed form, the fastest.",
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of the validation part, of initialisation and of batch order."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train; auto: on CUDA where there is.")
    C: float | None = Field(
        None,
        gt=0,
        description="logistic: inverse strength of the L2 penalty; unset: chosen on validation.",
    )
    alpha: float | None = Field(
        None,
        gt=0,
        description="ridge: strength of the L2 penalty; unset: chosen on validation.",
    )
    k: int = Field(20, ge=1, description="knn: neighbours that vote.")
    tau: float = Field(0.07, gt=0, description="knn: temperature of the votes (DINO's).")
    hidden: tuple[PositiveInt, ...] = Field((1024, 512, 256), description="mlp: widths of the hidden layers.")
    epochs: int = Field(100, ge=1, description="mlp: passes over the training rows, at most.")
    patience: int = Field(10, ge=1, description="mlp: epochs without a better validation accuracy before it stops.")
    batch_size: int = Field(128, ge=1, description="mlp: rows in one step.")
    learning_rate: float = Field(3e-4, gt=0, le=1, description="mlp: step size.")


class TrainOptions(HeadOptions):
    """Train a classifier head on a table: fit on train, choose on validation, report once on test."""

    model_config = ConfigDict(populate_by_name=True)

    table: str = Field(description="Embedding table to learn from; rows without a split count as train.")
    head: str = Field(description="Folder for head.safetensors and head.json; an older head there is replaced.")
    from_head: str | None = Field(
        None,
        alias="from",
        description="Folder of an older head, to start from and to compare with: what became of its classes now that "
        "there are more.",
    )
    validation_fraction: float = Field(
        0.2, gt=0, lt=1, description="Share of train that is held out where the table has no validation split (0 to 1)."
    )
    test_fraction: float = Field(
        0.0, ge=0, lt=1, description="Share of train that is held out where the table has no test split; 0: none."
    )
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="Memory for features (GiB); where they don't fit, they are streamed from the table in every pass. "
        "Unset: half of what is free.",
    )
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
