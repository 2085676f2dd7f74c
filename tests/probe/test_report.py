"""The report: exact Markdown, a Parquet row for each result, and a plot where there can be one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.probe import ProbeOptions
from pipeline.probe.report import as_table, comparison, markdown, plot, write_report

NONE = {"homepage": "", "citation": "", "licence": "", "published": {}}


def cell(dataset: str, backbone: str, value: float, **changes: Any) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "backbone": backbone,
        "metric": "top1",
        "status": "done",
        "reason": None,
        "value": value,
        "low": value - 0.01,
        "high": value + 0.005,
        "notes": [],
        "C": 10**-0.5,
        "num_rows": {"train": 1600, "validation": 400, "test": 1000},
        "num_classes": 10,
        "held_out": ["validation"],
        "contract": {"weights": "auto", "weights_sha256": "0123456789abcdef", "digest": "d"},
        "test": {"top1": value, "top5": 1.0, "mean_per_class": value, "macro_f1": value},
        **changes,
    }


def missing(dataset: str, backbone: str, reason: str) -> dict[str, Any]:
    status = {"status": "not run", "reason": reason, "value": None, "notes": []}
    return {"dataset": dataset, "backbone": backbone, "metric": "top1", **status}


RECORD: dict[str, Any] = {
    "suite": "small",
    "description": "Two datasets.",
    "published_source": "https://example.org/table",
    "datasets": [
        {
            **NONE,
            "name": "digits",
            "title": "Digits",
            "metric": "top1",
            "homepage": "https://example.org/digits",
            "citation": "Somebody 1998.",
            "licence": "CC BY 4.0",
            "published": {"Theirs": 99.5},
        },
        {**NONE, "name": "birds", "title": "", "metric": "mean_per_class"},
    ],
    "backbones": [
        {"name": "pixels", "backbone": "pixels", "weights": "auto", "preprocess": None},
        {"name": "resnet", "backbone": "resnet", "weights": "random:0", "preprocess": None},
    ],
    "cells": [
        cell("digits", "pixels", 0.97, notes=["expected 1,001 images for test, found 1,000"]),
        cell("digits", "resnet", 0.9),
        cell("birds", "pixels", 0.5),
        missing("birds", "resnet", "Expected a | there.\nFound none."),
    ],
}

EXPECTED = """# Linear probe: small

Two datasets.

| dataset | metric | pixels | resnet (RANDOM weights) | Theirs (published) |
|---|---|---|---|---|
| Digits | top-1 | 97.0 [96.0, 97.5] | 90.0 [89.0, 90.5] | 99.50 |
| birds | mean per class | 50.0 [49.0, 50.5] | not run |  |
| mean of 2 |  | 73.50 |  |  |

![](small.png)

Published numbers: <https://example.org/table>.

## Not run

- birds, resnet: Expected a \\| there. Found none.

## Not as expected

- digits, pixels: expected 1,001 images for test, found 1,000

## Protocol

PROTOCOL

| dataset | backbone | C | train | validation | test | classes | weights |
|---|---|---|---|---|---|---|---|
| digits | pixels | 0.316 | 1,600 | 400* | 1,000 | 10 | auto (0123456789ab) |
| digits | resnet | 0.316 | 1,600 | 400* | 1,000 | 10 | auto (0123456789ab) |
| birds | pixels | 0.316 | 1,600 | 400* | 1,000 | 10 | auto (0123456789ab) |

\\* held out of train, by content

## Datasets

- **Digits**. Somebody 1998. <https://example.org/digits>. Licence: CC BY 4.0.
- **birds**.
"""


def test_markdown__exactly() -> None:
    text = markdown(RECORD, "small.png")
    protocol = next(line for line in text.splitlines() if line.startswith("Features are frozen."))
    assert text.replace(protocol, "PROTOCOL") == EXPECTED


def test_comparison__has_no_mean_of_one_dataset() -> None:
    one = {**RECORD, "datasets": RECORD["datasets"][:1]}
    assert comparison(one).splitlines()[-1].startswith("| Digits |")


def test_as_table__a_row_for_each_result() -> None:
    table = as_table(RECORD)
    assert table.num_rows == 4
    assert table["value"].to_pylist() == [0.97, 0.9, 0.5, None]
    first, last = table.to_pylist()[0], table.to_pylist()[-1]
    assert (first["C"], first["num_train"], first["num_test"]) == (10**-0.5, 1600, 1000)
    assert (first["weights"], first["contract_digest"]) == ("auto", "d")
    assert (last["status"], last["reason"], last["top1"]) == ("not run", "Expected a | there.\nFound none.", None)


def test_write_report__all_four_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    record = write_report(RECORD, ProbeOptions(suite="small", output=str(tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.json", "small.md", "small.parquet", "small.png"]
    assert record["report"]["png"] == str(tmp_path / "small.png")
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")
    assert pq.read_table(tmp_path / "small.parquet").equals(as_table(RECORD))


def test_write_report__goes_on_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # an import of it fails
    assert plot(RECORD, str(tmp_path)) is None
    assert "for want of matplotlib" in caplog.text
    record = write_report(RECORD, ProbeOptions(suite="small", output=str(tmp_path)))
    assert record["report"]["png"] is None
    assert "![]" not in (tmp_path / "small.md").read_text()
