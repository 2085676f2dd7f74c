"""The watchdog: what is a sign of life, and when it bites."""

from __future__ import annotations

import pytest

from pipeline.watchdog import Stalled, Watchdog


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_check__bites_after_the_limit_without_any_change(clock: Clock) -> None:
    watchdog = Watchdog(100, clock)
    watchdog.start(frozenset("a"))
    for clock.now in (0, 60, 120, 180):
        watchdog.note("work", clock.now)
        watchdog.check()
    clock.now = 270
    watchdog.note("work", 180)  # the same as before
    watchdog.check()
    clock.now = 281
    with pytest.raises(Stalled, match="101 s"):
        watchdog.check()
    assert watchdog.stalled_s == 101


def test_check__a_new_pass_begins_anew(clock: Clock) -> None:
    watchdog = Watchdog(100, clock)
    clock.now = 101
    with pytest.raises(Stalled):
        watchdog.check()
    watchdog.start(frozenset("a"))
    watchdog.check()
    assert watchdog.stalled_s is None


def test_note_nodes__a_lost_node_shortens_the_wait_and_a_new_one_is_a_sign_of_life(clock: Clock) -> None:
    watchdog = Watchdog(1000, clock)
    watchdog.start(frozenset("ab"))
    clock.now = 61
    watchdog.check()
    watchdog.note_nodes(frozenset("a"))
    with pytest.raises(Stalled):
        watchdog.check()
    watchdog.note_nodes(frozenset("ac"))
    watchdog.check()
    clock.now = 130
    watchdog.note_nodes(frozenset("ac"))
    with pytest.raises(Stalled):
        watchdog.check()
