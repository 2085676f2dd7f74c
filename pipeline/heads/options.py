"""What jobs on heads can be asked for."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, PositiveInt, field_validator, model_validator

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
    epochs: int = Field(30, ge=1, description="mlp: passes over the training rows, at most.")
    patience: int = Field(10, ge=1, description="mlp: epochs without a better validation accuracy before it stops.")
    batch_size: int | None = Field(
        None, ge=1, description="mlp: rows in one step; unset: 32 to 1024, by the number of training rows."
    )
    optimizer: Literal["adamw", "rmsprop"] = Field("adamw", description="mlp: what moves the weights.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="mlp: step size at the start, from where it falls to zero in a straight line over all epochs; "
        "unset: 0.001 for adamw, 0.0005 for rmsprop, for batches of more than 512 rows more by the root.",
    )
    weight_decay: float = Field(0.01, ge=0, description="mlp: share of a weight that a step of size 1 takes away.")
    dropout: float = Field(
        0.3, ge=0, lt=1, description="mlp: share of hidden values that are put to zero in training (0 to 1)."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="mlp: share of each label that is spread over all classes (0 to 1)."
    )
    class_weights: Literal["balanced", "none"] = Field(
        "none", description="mlp: balanced: each class counts alike, however many rows it has; none: each row does."
    )


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
    near_duplicate_cosine: float = Field(
        0.99,
        ge=0.5,
        le=1,
        description="Cosine similarity, of features less their mean, from which on two images are near duplicates; "
        "those in different parts are warned of. 1: exact copies alone.",
    )
    strict_splits: bool = Field(False, description="Fail where an image is in two parts, exactly or nearly.")
    seeds: int = Field(
        1, ge=1, le=1000, description="Trainings, with this many seeds from --seed on, to tell what is chance."
    )
    learning_curve: bool = Field(
        False, description="Also fit heads to 1, 2, 5, 10, 20 and 50 % of the training rows, and tell what they reach."
    )
    shots: tuple[PositiveInt, ...] = Field(
        (), description="The same with so many training rows of each class, as 1,2,4,8,16."
    )
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="Memory for features (GiB); where they don't fit, they are streamed from the table in every pass. "
        "Unset: half of what is free.",
    )
    num_workers: int = Field(
        0, ge=0, description="Processes of a Ray cluster that train together (Ray Train); 0: this process alone."
    )
    use_gpu: bool = Field(False, description="Give each of the workers a GPU.")
    table_storage_options: dict[str, Any] = Field(
        {}, description="Of the table's and the head's file system (fsspec), as JSON; no credentials."
    )
    verbose: bool = Field(False, description="Show the traceback of a failure.")

    @field_validator("shots")
    @classmethod
    def _in_order(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _one_curve(self) -> TrainOptions:
        if self.learning_curve and self.shots:
            raise ValueError("expected --learning-curve (shares of the rows) or --shots (rows of a class), got both")
        return self


class EvaluateOptions(Options):
    """Measure a head on one split of a table."""

    table: str = Field(description="Embedding table with labels.")
    head: str = Field(description="Folder of the head.")
    split: str = Field("test", description="Rows to measure on: train, validation or test.")
    table_storage_options: dict[str, Any] = Field(
        {}, description="Of the table's and the head's file system (fsspec), as JSON; no credentials."
    )
    verbose: bool = Field(False, description="Show the traceback of a failure.")
