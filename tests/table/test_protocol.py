"""The commit layer under random interleavings of whatever may happen to it; see `tests.table.machine`."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.table.machine import CommitProtocol

pytestmark = pytest.mark.faults


@pytest.fixture(autouse=True)
def serial(monkeypatch: pytest.MonkeyPatch) -> None:
    """One operation of a writer after the other, so that schedules can be repeated; and plans of two units."""
    for name in ("amend._PARALLEL", "again._PARALLEL_READS", "manifest._PARALLEL_READS", "plan._PARALLEL_READS"):
        monkeypatch.setattr(f"pipeline.table.{name}", 1)
    for name in ("again", "planning"):
        monkeypatch.setattr(f"pipeline.table.{name}.UNITS_PER_PLAN", 2)


def test_protocol__keeps_its_promises_whatever_happens() -> None:
    run_state_machine_as_test(CommitProtocol, settings=settings(max_examples=int(os.environ.get("N","100")), stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True))
