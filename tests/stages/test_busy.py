"""The time of an engine that several units share."""

from __future__ import annotations

from pipeline.stages.busy import Busy


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_busy__counts_only_what_is_spent_inside() -> None:
    clock = Clock()
    stay = Busy(clock).stay()
    for seconds in (1.0, 2.0):
        with stay:
            clock.now += seconds
        clock.now += 10.0
    assert stay.seconds == 3.0


def test_busy__what_several_units_spend_inside_together_counts_once_and_for_the_first_of_them() -> None:
    clock = Clock()
    busy = Busy(clock)
    first, second = busy.stay(), busy.stay()
    with first:
        clock.now += 1.0
        with second:
            clock.now += 2.0
    with second:
        clock.now += 4.0
        with first:
            clock.now += 8.0
        clock.now += 16.0
    assert (first.seconds, second.seconds) == (11.0, 20.0)


def test_busy__a_unit_that_fails_is_not_inside_any_more() -> None:
    clock = Clock()
    busy = Busy(clock)
    failing, other = busy.stay(), busy.stay()
    try:
        with failing:
            clock.now += 1.0
            raise RuntimeError
    except RuntimeError:
        clock.now += 2.0
    with other:
        clock.now += 4.0
    assert (failing.seconds, other.seconds) == (1.0, 4.0)
