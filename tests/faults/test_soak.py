"""The soak in short, and that its judge sees what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import samples
from tests.soak import Start, computed_after_commit, soak_once

pytestmark = pytest.mark.faults


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_soak_once__is_exact_after_kills_of_every_kind(tmp_path: Path) -> None:
    source = samples.write_folder(tmp_path / "images", per_class=25)
    run = soak_once(source, tmp_path / "run", seed="1", unit_size=4)
    assert run.breaches == []
    assert run.kills.total() >= 2
    assert run.ledger["embedded"] == 100


def test_computed_after_commit__sees_a_committed_unit_come_by_again() -> None:
    lines = [["read", "a", "1"], ["committed", "a", "2"], ["read", "b", "1"], ["embed", "b", "3"]]
    assert computed_after_commit(lines, [Start(0, {})]) == []
    assert computed_after_commit([*lines, ["read", "a", "1"]], [Start(0, {})]) != []
    # b's process died before it could say that b was committed
    again = [*lines, ["read", "b", "1"]]
    assert computed_after_commit(again, [Start(0, {}), Start(4, {"a": ""})]) == []
    assert computed_after_commit(again, [Start(0, {}), Start(4, {"a": "", "b": ""})]) != []
