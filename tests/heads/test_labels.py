"""What is odd about labels is handled, and said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.heads import TrainOptions, train
from pipeline.heads.notes import counted, listed
from tests.heads.tables import Row, write_arrays, write_table

#: Class c has one image; d is in test only, c in train only; a and b everywhere.
ROWS: list[Row] = [
    *[(f"train {i}", "ab"[i % 2], "train", [10.0 * (i % 2) + i, 1.0 - i]) for i in range(20)],
    ("single", "c", "train", [3.0, 50.0]),
    ("no label", None, "train", [1.0, 1.0]),
    ("empty label", "", "train", [2.0, 1.0]),
    ("blank label", "  ", "test", [2.0, -1.0]),
    *[(f"validation {i}", "ab"[i % 2], "validation", [10.0 * (i % 2) + i, 2.0 - i]) for i in range(6)],
    *[(f"test {i}", "ab"[i % 2], "test", [10.0 * (i % 2) + i, 3.0 - i]) for i in range(6)],
    ("unknown 1", "d", "test", [0.0, 7.0]),
    ("unknown 2", "d", "test", [7.0, 0.0]),
    ("other 1", "a", "holdout", [7.0, 1.0]),
    ("other 2", None, "holdout", [7.0, 2.0]),
]


def trained(tmp_path: Path, rows: list[Row], **options: object) -> dict[str, object]:
    uri = write_table(tmp_path / "table", rows)
    asked = {"kind": "ridge", "near_duplicate_cosine": 1, **options}
    return train(TrainOptions(table=uri, head=str(tmp_path / "head"), **asked))


def test_train__says_what_is_odd_about_labels(tmp_path: Path) -> None:
    record = trained(tmp_path, ROWS)
    assert record["notes"] == [
        "Left out for want of a label (an empty one counts as none: 2): 4 rows.",
        "Not used, for the splits are train, validation and test: 1 row of holdout.",
        "Classes with one training row: 1 of 3: c.",
        "Classes without rows in validation: 1 of 3: c.",
        "Classes that test has and train has not: 1 with 2 rows, counted as wrong: d.",
        "Classes without rows in test: 1 of 3: c.",
    ]
    assert json.loads((tmp_path / "head" / "head.json").read_text())["config"]["notes"] == record["notes"]
    assert record["classes"] == ["a", "b", "c"]
    assert record["num_unlabelled"] == 4
    test = record["metrics"]["test"]
    assert (test["num_rows"], test["num_unknown_class"]) == (8, 2)
    assert test["top1"] <= 6 / 8
    assert test["per_class"]["d"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2}


def test_train__logs_what_is_odd(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = trained(tmp_path, ROWS)
    assert [entry.message for entry in caplog.records if entry.levelname == "WARNING"] == record["notes"]


def test_train__a_class_of_one_image_stays_in_train(tmp_path: Path) -> None:
    rows = [(content, label, None, x) for content, label, split, x in ROWS if split == "train"]
    record = trained(tmp_path, rows, test_fraction=0.2)
    assert record["classes"] == ["a", "b", "c"]
    for part in ("validation", "test"):
        assert record["metrics"][part]["per_class"]["c"]["support"] == 0
        assert f"Classes without rows in {part}: 1 of 3: c." in record["notes"]


def test_train__labels_that_are_lists_are_warned_of(tmp_path: Path) -> None:
    rows = [(c, '["a", "b"]' if label == "a" else label, s, x) for c, label, s, x in ROWS if s != "holdout"]
    notes = trained(tmp_path, rows)["notes"]
    assert (
        "Labels that are lists: 1, each taken for one class, since images of several labels are not supported: "
        '["a", "b"].'
    ) in notes
    rows = [(c, "[1, 2)" if label == "a" else label, s, x) for c, label, s, x in ROWS if s != "holdout"]
    assert not any("lists" in note for note in trained(tmp_path / "intervals", rows)["notes"])


def test_train__classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(0, 1, (40, 3))
    labels = [("10", "9", "2", "-1")[i % 4] for i in range(40)]
    uri = write_arrays(tmp_path / "table", X, labels)
    record = train(TrainOptions(table=uri, head=str(tmp_path / "head"), kind="ridge"))
    assert record["classes"] == ["-1", "2", "9", "10"]


def test_train__thousands_of_classes_have_a_line_each(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    y = np.concatenate([np.arange(600), random.integers(0, 600, 1400)])
    X = random.normal(0, 1, (600, 8))[y] + 0.1 * random.normal(0, 1, (2000, 8))
    uri = write_arrays(tmp_path / "table", X, [str(k) for k in y])
    record = train(TrainOptions(table=uri, head=str(tmp_path / "head"), kind="ridge", alpha=0.01))
    text = (tmp_path / "head" / "head.json").read_text()
    assert json.loads(text)["metrics"] == record["metrics"]
    lines = text.splitlines()
    assert len(lines) < 2 * 600 + 200
    assert '        "17": {"precision": ' in text
    assert "confusion" not in record["metrics"]["train"]
    assert any(
        note.startswith("Classes with one training row: ") and note.endswith(" more.") for note in record["notes"]
    )


def test_listed__names_ten() -> None:
    names = [str(i) for i in range(12)]
    assert listed(names) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    assert listed(names[:10]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert (counted(1, "row"), counted(0, "row")) == ("1 row", "0 rows")
