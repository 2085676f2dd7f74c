"""What units cost, added up."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.stages.costs import Costs, costs_of, summed, with_costs

UNIT = Costs(
    read_s=2.0, decode_s=1.5, bytes_read=10, read_peak_bytes=100, embed_s=4.0, engine_s=3.0, embed_began=50.0, actor="a"
)


def test_with_costs__come_back_from_every_block() -> None:
    block = with_costs(pa.table({"uri": ["a", "b"]}), UNIT)
    assert costs_of(block) == costs_of(block.slice(1)) == UNIT
    assert costs_of(with_costs(block, replace(UNIT, commit_s=1.0))) == replace(UNIT, commit_s=1.0)


def test_summed__adds_seconds_and_bytes_and_takes_the_largest_process() -> None:
    sums = summed([UNIT, replace(UNIT, read_peak_bytes=70, commit_s=0.5, bytes_written=7, embed_began=54.0)])
    assert sums["stage_s"] == {"read": 4.0, "decode": 3.0, "embed": 8.0, "engine": 6.0, "commit": 0.5}
    assert (sums["bytes_read"], sums["bytes_written"]) == (20, 7)
    assert sums["peak_memory_bytes"] == {"read": 100, "embed": 0, "commit": 0}


def test_summed__an_engine_is_idle_between_its_units_and_not_before_or_after() -> None:
    waited = replace(UNIT, embed_began=56.0)  # the first unit ended at 54
    assert summed([UNIT, waited])["engine_busy"] == pytest.approx(6 / 10)
    assert summed([UNIT, waited, replace(waited, actor="b")])["engine_busy"] == pytest.approx(9 / 14, abs=1e-3)
    assert summed([Costs(read_s=1.0)])["engine_busy"] is None


def test_peak_bytes__is_that_of_this_process() -> None:
    code = (
        "from pipeline.stages.costs import peak_bytes; before = peak_bytes(); ballast = b'x' * 2**27; "
        "del ballast; print(before, peak_bytes())"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    before, after = map(int, said.split())
    assert 2**24 < before < 2**28
    assert after - before == pytest.approx(2**27, rel=0.1)
