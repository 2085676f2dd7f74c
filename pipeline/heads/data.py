"""Labelled features from a table, apart by split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import FeatureContract
from pipeline.errors import TableError
from pipeline.storage import StorageOptions
from pipeline.table import embeddings, open_table, read_info, read_rows

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """Embeddings with labels, of one split.

    Args:
        X: float32 of shape (N, D).
        labels: N class names.
        sha256: N digests of the images' bytes.
    """

    X: Features
    labels: NDArray[np.object_]
    sha256: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, mask: NDArray[np.bool_]) -> LabelledFeatures:
        """Return the rows where ``mask`` is true."""
        return LabelledFeatures(self.X[mask], self.labels[mask], self.sha256[mask])


@dataclass(frozen=True, slots=True)
class TableFeatures:
    """The labelled rows of a table.

    Args:
        contract: The features' contract.
        splits: Rows by split; rows without a split are under ``train``.
        num_unlabelled: Rows without a label, left out.
    """

    contract: FeatureContract
    splits: dict[str, LabelledFeatures]
    num_unlabelled: int


def read_features(table_uri: str, options: StorageOptions | None = None) -> TableFeatures:
    """Read all labelled embeddings of a table into memory.

    Raises:
        TableError: No table, no rows, or no labels.
    """
    table = open_table(table_uri, options)
    info = read_info(table)
    if info.kind != "embeddings":
        raise TableError(f"Expected a table of embeddings at {table.uri}, got one of {info.kind}.")
    rows = read_rows(table, ["label", "split", "sha256", "embedding"])
    labels = rows["label"].to_numpy()
    labelled = np.asarray([label is not None for label in labels], bool)
    if not labelled.any():
        raise TableError(
            f"Expected labels in {table.uri}, but none of its {len(rows)} rows has one. Put the images of each class "
            "into a folder of the class's name."
        )
    everything = LabelledFeatures(embeddings(rows["embedding"]), labels, rows["sha256"].to_numpy())
    split = np.asarray([name or "train" for name in rows["split"].to_pylist()], object)
    splits = {str(name): everything.where(labelled & (split == name)) for name in sorted(set(split[labelled]))}
    return TableFeatures(info.contract, splits, int((~labelled).sum()))


def carve_validation(train: LabelledFeatures, fraction: float, seed: int) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Take a stratified part of the training rows for validation, chosen by content.

    In each class, images are put in the order of a digest of their content and the seed, and the first ``fraction`` of
    them, rounded up but never all, are taken. Identical images share a digest, so they stay on one side; which side an
    image is on doesn't depend on which other classes there are, nor on the order of the rows.

    Returns:
        The remaining training rows and the validation rows.
    """
    taken: dict[str, bool] = {}
    for name in sorted(set(train.labels)):
        contents = sorted(set(train.sha256[train.labels == name]), key=lambda sha: _digest(sha, seed))
        count = min(math.ceil(fraction * len(contents)), len(contents) - 1)
        for rank, sha in enumerate(contents):
            taken.setdefault(sha, rank < count)
    mask = np.asarray([taken[sha] for sha in train.sha256], bool)
    return train.where(~mask), train.where(mask)


def _digest(sha: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{sha}".encode()).hexdigest()


def class_indices(labels: Sequence[str] | NDArray[np.object_], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return each label's place in ``classes``, -1 for a label that isn't there."""
    places = {name: place for place, name in enumerate(classes)}
    return np.asarray([places.get(label, -1) for label in labels], np.int64)
