"""Labels, splits and contents of a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import TableError
from pipeline.heads.rows import Rows, in_order, read_rows_of
from pipeline.table import Table, TableInfo, create_table, open_table
from tests.heads.tables import CONTRACT, Row, write_table

VALUES: list[Row] = [
    ("1", "x", "train", [1.0, 2.0]),
    ("2", "y", None, [3.0, 4.0]),
    ("3", "x", "test", [5.0, 6.0]),
    ("4", None, "test", [7.0, 8.0]),
    ("1", "y", "validation", [9.0, 10.0]),
]


def rows_of(uri: str | Path) -> Rows:
    return read_rows_of(open_table(str(uri), {}))


def numbers(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask).tolist()


@pytest.mark.parametrize("rows_per_file", [None, 1, 2, [0, 3, 0, 2, 0]])
def test_read_rows_of__labels_splits_and_contents(tmp_path: Path, rows_per_file: int | list[int] | None) -> None:
    rows = rows_of(write_table(tmp_path, VALUES, rows_per_file=rows_per_file))
    assert len(rows) == 5
    assert [rows.names[place] if place >= 0 else None for place in rows.label] == ["x", "y", "x", None, "y"]
    assert [rows.splits[place] for place in rows.split] == ["train", "train", "test", "test", "validation"]
    assert numbers(rows.labelled) == [0, 1, 2, 4]
    assert numbers(rows.of_split("train")) == [0, 1]
    assert numbers(rows.of_split("test")) == [2]  # not the one without a label
    assert numbers(rows.of_split("holdout")) == []
    assert (rows.content[0] == rows.content[4]).all()
    assert len(np.unique(rows.content, axis=0)) == 4
    assert rows.offsets[0] == 0
    assert rows.offsets[-1] == 5
    assert rows.contract == CONTRACT


@pytest.mark.parametrize("rows_per_file", [1, 2, [0, 3, 0, 2, 0]])
def test_uris__of_any_rows(tmp_path: Path, rows_per_file: int | list[int]) -> None:
    rows = rows_of(write_table(tmp_path, VALUES, rows_per_file=rows_per_file))
    assert rows.uris(np.asarray([4, 0, 3, 2])) == ["4", "0", "3", "2"]
    assert rows.uris(np.asarray([], np.int64)) == []


@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("float16", 2)])
def test_read_rows_of__size_of_a_value(tmp_path: Path, dtype: str, itemsize: int) -> None:
    assert rows_of(write_table(tmp_path, VALUES, dtype)).itemsize == itemsize  # type: ignore[arg-type]


def test_read_rows_of__an_empty_split_is_none(tmp_path: Path) -> None:
    rows = rows_of(write_table(tmp_path, [("1", "x", "", [1.0, 2.0])]))
    assert numbers(rows.of_split("train")) == [0]


def test_read_rows_of__refuses_a_table_without_labels_or_rows(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="none of its 1 rows has one"):
        rows_of(write_table(tmp_path / "a", [("1", None, None, [1.0, 2.0])]))
    with pytest.raises(TableError, match="has no rows yet"):
        rows_of(write_table(tmp_path / "b", []))
    with pytest.raises(TableError, match="found no table"):
        rows_of(tmp_path / "c")


def test_read_rows_of__refuses_a_table_of_predictions(tmp_path: Path) -> None:
    create_table(Table(str(tmp_path)), replace(TableInfo("predictions", CONTRACT, None), head_sha256="00"))
    with pytest.raises(TableError, match="Expected a table of embeddings at .*, got one of predictions"):
        rows_of(tmp_path)


def test_in_order__numbers_by_value_and_text_by_characters() -> None:
    assert in_order({"10", "9", "-1", "09"}) == ("-1", "09", "9", "10")
    assert in_order(["10", "9", "b", "a"]) == ("10", "9", "a", "b")


def test_read_rows_of__classes_are_in_order_whatever_comes_first(tmp_path: Path) -> None:
    values: list[Row] = [(str(i), label, None, [0.0, 0.0]) for i, label in enumerate(["10", "2", "9", "2"])]
    rows = rows_of(write_table(tmp_path, values, rows_per_file=1))
    assert rows.names == ("2", "9", "10")
    assert rows.label.tolist() == [2, 0, 1, 0]
