"""What jobs.train says about leaks, labels, seeds and learning curves, on small tables, without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import train
from jobs.text import CLASS_LINES, class_lines
from tests.heads.clouds import clouds
from tests.heads.tables import write_arrays
from tests.jobs.test_jobs import run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Rows 0 to 79 are train, 80 to 99 validation, 100 to 119 test; 110 is 10 again, 111 is 11 with another label."""
    X, y = clouds(120, 2, 64, seed=1, spread=1.0)
    contents, labels = [f"image {i}" for i in range(120)], ["cat" if k else "dog" for k in y]
    for copy, of in ((110, 10), (111, 11)):
        contents[copy], X[copy], labels[copy] = contents[of], X[of], labels[of]
    labels[111] = "cat" if labels[11] == "dog" else "dog"
    splits = ["train"] * 80 + ["validation"] * 20 + ["test"] * 20
    write_arrays(tmp_path / "table", X, labels, splits, contents, rows_per_file=50)
    return tmp_path / "table"


def lines_of(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if not line[:2].isdigit()]  # the log's begin with the time


def test_train__tells_of_leaks(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, record = run(capsys, train, "--table", table, "--head", tmp_path / "head", "--kind", "ridge")
    assert code == 0
    lines = lines_of(record["stderr"])
    note = "Exact copies of images of train in test: 2 rows, 1 of them with another label."
    assert record["notes"] == [note]
    at = lines.index(f"Note: {note}")
    label = {image["uri"]: image["label"] for image in record["leaks"]["between"][1]["exact"]["examples"][0]["images"]}
    assert lines[at + 1] == f"            exact copies: 10 (train, {label['10']}), 110 (test, {label['110']})"
    without = record["leaks"]["without_leaked"]["test"]
    low, high = without["interval"]
    assert lines[at + 2] == (
        "            test without rows that are in an earlier part, too: "
        f"top-1 {without['top1']:.4f} [{low:.4f}, {high:.4f}] (18 rows)"
    )
    assert any(line.endswith(note) for line in record["stderr"].splitlines() if line[:2].isdigit())


def test_train__strict_splits(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = tmp_path / "head"
    code, record = run(capsys, train, "--table", table, "--head", head, "--strict-splits")
    assert (code, record["status"]) == (2, "failed")
    assert "Exact copies of images of train in test: 2 rows" in record["error"]
    assert not head.exists()


def test_train__prints_seeds_and_a_learning_curve(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--table", table, "--head", tmp_path / "head", "--kind", "knn", "--seeds", 2, "--shots", "1,2")
    code, record = run(capsys, train, *arguments)
    assert code == 0
    lines = lines_of(record["stderr"])
    at = lines.index("Over 2 seeds, mean ± standard deviation [least, greatest]:")
    spread = record["seeds"]["metrics"]["test"]["top1"]
    assert lines[at + 3].startswith(
        f"      test: top-1 {spread['mean']:.4f} ± 0.0000 [{spread['min']:.4f}, {spread['max']:.4f}], top-5 1.0000"
    )
    at = lines.index("Learning curve, on test:")
    assert lines[at + 1] == "     shots    rows   top-1  95 % interval"
    for line, point in zip(lines[at + 2 : at + 4], record["learning_curve"]["points"], strict=True):
        low, high = point["interval"]
        shots, rows = point["shots"], point["num_rows"]
        assert line == f"         {shots}       {rows}  {point['top1']:.4f}  [{low:.4f}, {high:.4f}]"
    code, record = run(capsys, train, *arguments[:6], "--learning-curve")
    lines = lines_of(record["stderr"])
    at = lines.index("Learning curve, on test:")
    assert lines[at + 1] == "     share    rows   top-1  95 % interval"
    sizes = [point["num_rows"] for point in record["learning_curve"]["points"]]
    assert [line[:18] for line in lines[at + 2 : at + 9]] == [
        f"{share:>8} % {size:7d}" for share, size in zip((1, 2, 5, 10, 20, 50, 100), sizes, strict=True)
    ]


def test_class_lines__of_very_many_classes_are_the_worst() -> None:
    value = {"precision": 1.0, "recall": 1.0, "support": 3}
    few = {"per_class": {str(i): {**value, "f1": 0.5} for i in range(CLASS_LINES)}}
    assert len(class_lines(few)) == CLASS_LINES + 1
    many = {"per_class": {str(i): {**value, "f1": 1 - i / 100} for i in range(100)}}
    lines = class_lines(many)
    assert len(lines) == CLASS_LINES + 2
    assert lines[1] == "   99     1.0000  1.0000  0.0100        3"
    assert lines[-1] == "These are the 50 classes of the lowest F1 of 100; --json gives all."
