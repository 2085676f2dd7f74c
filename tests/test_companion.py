"""The companion of a run: signs of life, and what was embedded before."""

from __future__ import annotations

import hashlib

import pytest
import ray

from pipeline.companion import Companion, start_companion
from pipeline.monitor import Signs

SHA256 = [hashlib.sha256(bytes([i])).hexdigest() for i in range(3)]


def test_companion__collects_signs_of_life() -> None:
    companion = Companion([])
    companion.begin("a")
    companion.begin("b")
    companion.add(read=3)
    companion.add(embedded=2)
    companion.end("a")
    assert companion.signs() == Signs(3, 2, frozenset({"b"}))
    companion.forget()
    assert companion.signs() == Signs(3, 2, frozenset())


def test_companion__knows_what_was_noted() -> None:
    companion = Companion([])
    companion.note("t/data/x.parquet", SHA256[:2])
    assert companion.find([SHA256[1], SHA256[2]]) == [("t/data/x.parquet", 1), None]


@pytest.mark.usefixtures("ray_cluster")
def test_start_companion__answers_both_kinds_of_questions() -> None:
    companion = start_companion([])
    companion.add.remote(read=1)
    companion.note.remote("t/data/x.parquet", SHA256[:1])
    assert ray.get(companion.find.remote(SHA256[:2])) == [("t/data/x.parquet", 0), None]
    assert ray.get(companion.signs.remote()) == Signs(read=1)
    ray.kill(companion)
