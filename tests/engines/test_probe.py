"""The batch size: the smallest that is nearly the fastest, found once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from pipeline.engines.probe import best_size, remembered


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({1: 10.0, 2: 20.0, 4: 30.0}, 4),
        ({1: 10.0, 2: 29.5, 4: 30.0}, 2),
        ({1: 10.0, 2: 20.0, 4: 15.0}, 2),
        ({1: 10.0, 2: 9.0, 4: None}, 1),  # None: no memory
        ({1: None, 2: None, 4: None}, 1),
    ],
)
def test_best_size(rates: dict[int, float | None], best: int) -> None:
    tried = []

    def measure(size: int) -> float:
        tried.append(size)
        rate = rates[size]
        if rate is None:
            raise torch.cuda.OutOfMemoryError
        return rate

    assert best_size(measure, list(rates)) == best
    assert tried == list(rates)[: len(tried)]
    assert sum(rates[size] is None for size in tried) <= 1  # nothing larger is tried


def never() -> NoReturn:
    raise AssertionError("it is known")


def test_remembered__is_found_once_for_each_kind_of_device(tmp_path: Path) -> None:
    assert remembered(lambda: 256, ("fp16", "a GPU"), str(tmp_path)) == 256
    assert remembered(never, ("fp16", "a GPU"), str(tmp_path)) == 256
    assert remembered(lambda: 64, ("fp16", "another"), str(tmp_path)) == 64
    assert remembered(lambda: 32, ("fp16", "a GPU"), None) == 32


def test_remembered__a_note_that_makes_no_sense_is_replaced(tmp_path: Path) -> None:
    remembered(lambda: 256, ("a GPU",), str(tmp_path))
    (note,) = (tmp_path / "batch-sizes").iterdir()
    note.write_bytes(b"\xff\xfe")
    assert remembered(lambda: 128, ("a GPU",), str(tmp_path)) == 128
    assert remembered(never, ("a GPU",), str(tmp_path)) == 128


def test_remembered__a_cache_that_cannot_be_had_is_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "cache"
    cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert remembered(lambda: 7, ("a GPU",), str(cache)) == 7
    assert "can't be noted" in caplog.text
