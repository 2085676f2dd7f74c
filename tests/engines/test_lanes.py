"""Lanes that several callers share: each has its own results in order, and the device work from one to the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.engines.lanes import SharedLanes
from pipeline.images import Pixels

#: Seconds after which what a test waits for won't come any more.
_PATIENCE_S = 10.0


class Device:
    """Embeds a batch as its first value, and finishes it when it is told to, or fails it."""

    def __init__(self, num_lanes: int = 3, finished: Sequence[int] = (), failing: Sequence[int] = ()) -> None:
        self.lanes = [Lane(self) for _ in range(num_lanes)]
        self.submitted, self.finished, self.failing = list[int](), set(finished), set(failing)
        self.at_work = 0
        self.changed = threading.Condition()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        self.finish(*range(100))  # a test that failed waits for nothing

    def finish(self, *numbers: int) -> None:
        with self.changed:
            self.finished |= set(numbers)
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, _PATIENCE_S), f"only {self.submitted} were submitted"


class Lane:
    def __init__(self, device: Device) -> None:
        self.device = device
        self.number: int | None = None

    def submit(self, pixels: Pixels) -> None:
        assert self.number is None, "it is at work"
        number = int(pixels.flat[0])
        if number < 100:
            with self.device.changed:
                self.number = number
                self.device.submitted.append(number)
                self.device.at_work += 1
                self.device.changed.notify_all()
        else:
            raise ValueError(f"nobody can begin with {number}")

    def collect(self) -> np.ndarray:
        number = self.number
        assert number is not None, "it is not at work"
        self.device.wait_for(lambda: number in self.device.finished)
        self.number = None
        self.device.at_work -= 1
        if number in self.device.failing:
            raise RuntimeError(f"{number} went wrong")
        return np.full((2, 1), number, np.float32)


def batches(*numbers: int) -> list[Pixels]:
    return [np.full((2, 4, 4, 3), number, np.uint8) for number in numbers]


def values(results: Iterator[np.ndarray]) -> list[int]:
    return [int(result[0, 0]) for result in results]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 11])
def test_shared_lanes__results_come_in_order(count: int) -> None:
    lanes = SharedLanes(Device(finished=range(100)).lanes)
    for _ in range(2):
        assert values(lanes.embed_batches(batches(*range(count)))) == list(range(count))


def test_shared_lanes__the_next_begins_while_the_last_batches_of_one_are_at_work() -> None:
    device = Device()
    lanes = SharedLanes(device.lanes)
    with ThreadPoolExecutor(2) as pool, device:
        first = pool.submit(lambda: values(lanes.embed_batches(batches(0, 1, 2, 3))))
        device.wait_for(lambda: device.submitted == [0, 1, 2])
        second = pool.submit(lambda: values(lanes.embed_batches(batches(10, 11))))
        device.finish(0)
        device.wait_for(lambda: device.submitted == [0, 1, 2, 3])
        device.finish(1)  # 2 and 3 are at work, and a lane is free
        device.wait_for(lambda: device.submitted == [0, 1, 2, 3, 10])
        assert not first.done()
        device.finish(2)
        device.wait_for(lambda: device.submitted == [0, 1, 2, 3, 10, 11])
        device.finish(11, 10, 3)
        assert (first.result(_PATIENCE_S), second.result(_PATIENCE_S)) == ([0, 1, 2, 3], [10, 11])


def test_shared_lanes__nobody_waits_for_a_caller_that_is_slow_to_fetch_its_results() -> None:
    lanes = SharedLanes(Device(finished=range(100)).lanes)
    slow = lanes.embed_batches(batches(0, 1, 2))
    assert next(slow)[0, 0] == 0
    others = list[int]()
    thread = threading.Thread(
        target=lambda: others.extend(values(lanes.embed_batches(batches(10, 11, 12, 13)))), daemon=True
    )
    thread.start()
    thread.join(_PATIENCE_S)
    assert others == [10, 11, 12, 13]
    assert values(slow) == [1, 2]


def test_shared_lanes__who_comes_first_begins_first() -> None:
    device = Device(1)
    lanes = SharedLanes(device.lanes)
    with ThreadPoolExecutor(4) as pool, device:
        results = []
        for caller in range(4):
            results.append(pool.submit(lambda n: values(lanes.embed_batches(batches(n, n + 1))), 10 * caller))
            device.wait_for(lambda n=caller + 1: len(lanes._turns._waiting) == n)  # type: ignore[misc]
        device.finish(*range(100))
        assert [result.result(_PATIENCE_S) for result in results] == [[0, 1], [10, 11], [20, 21], [30, 31]]
    assert device.submitted == [0, 1, 10, 11, 20, 21, 30, 31]


def test_shared_lanes__an_error_is_that_of_whose_batch_it_was() -> None:
    device = Device(finished=range(100), failing=[1])
    lanes = SharedLanes(device.lanes)
    unlucky = lanes.embed_batches(batches(0, 1, 2))
    assert next(unlucky)[0, 0] == 0
    assert values(lanes.embed_batches(batches(*range(10, 20)))) == list(range(10, 20))  # it waited for 1, to get a lane
    with pytest.raises(RuntimeError, match="1 went wrong"):
        next(unlucky)
    assert device.at_work == 0
    assert values(lanes.embed_batches(batches(*range(20, 30)))) == list(range(20, 30))


@pytest.mark.parametrize("what", ["a batch fails", "a batch can't begin", "there is no next batch", "it is closed"])
def test_shared_lanes__others_go_on_whatever_ends_one(what: str) -> None:
    device = Device(finished=range(100), failing=[5])
    lanes = SharedLanes(device.lanes)

    def given() -> Iterator[Pixels]:
        yield from batches(0, 1, 2, 3)
        if what == "there is no next batch":
            raise OSError(what)
        yield from batches(200 if what == "a batch can't begin" else 5, 6, 7, 8, 9)

    for _ in device.lanes:  # none is lost
        results = lanes.embed_batches(given())
        assert next(results)[0, 0] == 0
        if what == "it is closed":
            results.close()  # type: ignore[attr-defined]
        else:
            with pytest.raises((RuntimeError, ValueError, OSError)):
                list(results)
        assert device.at_work == 0
    assert values(lanes.embed_batches(batches(*range(10, 20)))) == list(range(10, 20))
