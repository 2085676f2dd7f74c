"""The commit layer under random interleavings of whatever may happen to it, and that mistakes in it are found so.

`tests.table.machine` says what happens, `tests.table.oracle` what must be true after each step.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.table.faulty import FaultyCommit, OverwritingStore
from tests.table.machine import CommitProtocol

pytestmark = pytest.mark.faults

#: Schedules of the long test; more of them, for a night, by the environment.
_EXAMPLES = int(os.environ.get("VEP_PROTOCOL_EXAMPLES", "1500"))
_SETTINGS = settings(
    stateful_step_count=40,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
#: The same schedules at each run, and without making a failing one smaller.
_REPEATED = settings(_SETTINGS, derandomize=True, phases=[Phase.generate])

#: Mistakes, as attributes of the machine.
MISTAKES: dict[str, dict[str, Any]] = {
    "data is put before its rejects": {"commit": FaultyCommit(data_first=True)},
    "settled rejects are ignored": {"commit": FaultyCommit(follows=False)},
    "replaced rows are taken out after the data is put": {"commit": FaultyCommit(replaces_late=True)},
    "what is superseded while it is pending is not closed": {"commit": FaultyCommit(closes=False)},
    "the store overwrites what is there": {"store_class": OverwritingStore},
}


@pytest.fixture(autouse=True)
def small_plans(one_at_a_time: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let plans have two units at most."""
    for name in ("again", "planner"):
        monkeypatch.setattr(f"pipeline.table.{name}.UNITS_PER_PLAN", 2)


def test_protocol__keeps_its_promises_whatever_happens() -> None:
    run_state_machine_as_test(CommitProtocol, settings=settings(_REPEATED, max_examples=80))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_protocol__keeps_its_promises_in_many_more_schedules() -> None:
    """Others at each run; what is printed of a failure, plays it again."""
    run_state_machine_as_test(CommitProtocol, settings=settings(_SETTINGS, max_examples=_EXAMPLES, print_blob=True))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_protocol__a_mistake_is_found(mistake: str) -> None:
    machine = type("Mistaken", (CommitProtocol,), MISTAKES[mistake])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=settings(_REPEATED, max_examples=200))


def test_protocol__without_a_mistake_nothing_is_found() -> None:
    """What the faulty protocols are made of is right where none of its mistakes is turned on."""
    machine = type("Faultless", (CommitProtocol,), {"commit": FaultyCommit()})
    run_state_machine_as_test(machine, settings=settings(_REPEATED, max_examples=20))
