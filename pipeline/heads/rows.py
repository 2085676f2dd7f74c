"""What a table says of its rows but for the embeddings: labels, splits and contents, small enough for any table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.contract import FeatureContract
from pipeline.digests import Digests, digests_of
from pipeline.errors import TableError
from pipeline.table import Table, iter_files, read_file, read_info

Mask = NDArray[np.bool_]

#: The split of rows that have none.
TRAIN = "train"


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of an embedding table, without their embeddings: 26 bytes a row.

    Args:
        table: Where they are.
        contract: What their features are.
        itemsize: Bytes of one stored value: 2 or 4.
        files: URIs of the data files, in order.
        offsets: int64 of shape (F + 1,), the first row of each file, and the number of rows.
        names: All labels: as numbers if all are integers, else as text, in order.
        label: int32 of shape (N,), places in ``names``, -1 where there is no label.
        splits: The names of the splits.
        split: int16 of shape (N,), places in ``splits``; rows without a split are of ``train``.
        content: uint64 of shape (N, 2), digests of the images' SHA-256.
        num_empty: Rows whose label is empty, or blanks: they count as rows without one.
    """

    table: Table
    contract: FeatureContract
    itemsize: int
    files: tuple[str, ...]
    offsets: NDArray[np.int64]
    names: tuple[str, ...]
    label: NDArray[np.int32]
    splits: tuple[str, ...]
    split: NDArray[np.int16]
    content: Digests
    num_empty: int = 0

    def __len__(self) -> int:
        return len(self.label)

    @property
    def labelled(self) -> Mask:
        """Which rows have a label: bool of shape (N,)."""
        result: Mask = self.label >= 0
        return result

    def of_split(self, name: str) -> Mask:
        """Return which labelled rows are of a split: bool of shape (N,), all false for a split that isn't there."""
        place = self.splits.index(name) if name in self.splits else -1
        result: Mask = self.labelled & (self.split == place)
        return result

    def uris(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the images' URIs of some rows, by their numbers."""
        found: dict[int, str] = {}
        places = np.searchsorted(self.offsets, rows, side="right") - 1
        for place in np.unique(places):
            uris = read_file(self.table, self.files[place], ["uri"])["uri"]
            found |= {int(row): uris[int(row - self.offsets[place])].as_py() for row in rows[places == place]}
        return [found[int(row)] for row in rows]


def read_rows_of(table: Table) -> Rows:
    """Read labels, splits and contents of a table of embeddings.

    Raises:
        TableError: No table of embeddings, no rows, several labels an image, or no labels.
    """
    info = read_info(table)
    if info.kind != "embeddings":
        raise TableError(f"Expected a table of embeddings at {table.uri}, got one of {info.kind}.")
    files: list[str] = []
    counts: list[int] = []
    labels: list[pa.ChunkedArray] = []
    splits: list[pa.ChunkedArray] = []
    content: list[Digests] = []
    num_empty = 0
    for uri, part in iter_files(table, ["label", "split", "sha256"]):
        files.append(uri)
        counts.append(len(part))
        label, empty = _text(part["label"], uri)
        labels.append(label.dictionary_encode())
        num_empty += empty
        splits.append(_or_train(part["split"].cast(pa.string())).dictionary_encode())
        content.append(digests_of(part["sha256"]))
    if not sum(counts):
        raise TableError(f"Expected embeddings in {table.uri}, but it has no rows yet. Run jobs.embed first.")
    names, places = _places(labels)
    if not names:
        raise TableError(
            f"Expected labels in {table.uri}, but none of its {len(places)} rows has one. Put the images of each class "
            "into a folder of the class's name, or name the label's column (--label-from column:NAME)."
        )
    split_names, split = _places(splits)
    return Rows(
        table,
        info.contract,
        2 if info.dtype == "float16" else 4,
        tuple(files),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        names,
        places,
        split_names,
        split.astype(np.int16),
        np.concatenate(content),
        num_empty,
    )


def _or_train(splits: pa.ChunkedArray) -> pa.ChunkedArray:
    unsaid = pc.fill_null(pc.equal(splits, ""), True)
    return pc.if_else(unsaid, TRAIN, splits)


def _text(column: pa.ChunkedArray, uri: str) -> tuple[pa.ChunkedArray, int]:
    """Return labels as text, null where they are empty, and how many those are."""
    if pa.types.is_nested(column.type):
        raise TableError(
            f"Expected one label an image in {uri}, got a column of {column.type}. Images of several labels are not "
            "supported: write a column with one class each."
        )
    text = column.cast(pa.string())
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(text), ""), False)
    count = pc.sum(empty).as_py() or 0
    return (pc.if_else(empty, pa.scalar(None, pa.string()), text) if count else text), count


def _places(columns: list[pa.ChunkedArray]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Return the values in order, and each row's place among them, -1 for null."""
    joined = pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)
    joined = joined.unify_dictionaries()
    if not joined.num_chunks or not len(joined):
        return (), np.zeros(0, np.int32)
    values = joined.chunk(0).dictionary.to_pylist()
    names = in_order(values)
    order = {name: place for place, name in enumerate(names)}
    to_place = np.asarray([*(order[value] for value in values), -1], np.int32)
    codes = [pc.fill_null(chunk.indices, len(values)).to_numpy(zero_copy_only=False) for chunk in joined.chunks]
    return names, to_place[np.concatenate(codes).astype(np.int64)]


def in_order(labels: set[str] | list[str]) -> tuple[str, ...]:
    """Return labels in order: integers by their value, so that 9 comes before 10, else text by its characters."""
    try:
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    except ValueError:
        return tuple(sorted(labels))
