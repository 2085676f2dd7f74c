"""The ring: results in order, nothing left at work, smaller batches for want of memory; with lanes of our own."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pipeline.engines.cuda import end_if_lost
from pipeline.engines.ring import Batch, Ring

OutOfMemory = torch.cuda.OutOfMemoryError


class Device:
    """Has room for some images at a time; its lanes embed an image as its first value."""

    def __init__(self, room: int = 100, num_lanes: int = 3, room_for_lanes: int = 100) -> None:
        self.room, self.num_lanes, self.room_for_lanes = room, num_lanes, room_for_lanes
        self.at_work, self.most_at_work, self.made, self.sizes = 0, 0, list[int](), list[int]()

    def lanes(self, size: int) -> Sequence[Lane]:
        assert self.at_work == 0, "what is at work holds memory"
        self.made.append(size)
        if size > self.room_for_lanes:
            raise OutOfMemory
        return [Lane(self) for _ in range(self.num_lanes)]


class Lane:
    def __init__(self, device: Device) -> None:
        self.device = device
        self.pixels: Batch | None = None

    def submit(self, pixels: Batch) -> None:
        assert self.pixels is None, "it is at work"
        if len(pixels) > self.device.room:
            raise OutOfMemory
        self.pixels = pixels
        self.device.sizes.append(len(pixels))
        self.device.at_work += 1
        self.device.most_at_work = max(self.device.most_at_work, self.device.at_work)

    def collect(self) -> np.ndarray:
        pixels, self.pixels = np.asarray(self.pixels), None
        self.device.at_work -= 1
        return pixels[:, 0, 0, :1].astype(np.float32)


def batches(count: int, size: int) -> list[np.ndarray]:
    values = np.arange(count * size, dtype=np.uint8)
    return list(np.broadcast_to(values[:, None, None, None], (count * size, 2, 2, 3)).reshape(count, size, 2, 2, 3))


def values(results: Sequence[np.ndarray]) -> list[int]:
    return np.concatenate(results)[:, 0].astype(int).tolist()


@pytest.mark.parametrize("num_lanes", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_ring__results_come_in_order_with_all_lanes_at_work(num_lanes: int, count: int) -> None:
    device = Device(num_lanes=num_lanes)
    results = list(Ring(device.lanes, 4).embed_batches(batches(count, 4)))
    assert [len(result) for result in results] == [4] * count
    assert values([np.zeros((0, 1)), *results]) == list(range(4 * count))
    assert (device.most_at_work, device.at_work) == (min(count, num_lanes), 0)


@pytest.mark.parametrize("taken", [0, 1, 2, 5])
def test_ring__nothing_is_left_at_work_where_nobody_wants_more(taken: int) -> None:
    device = Device()
    ring = Ring(device.lanes, 4)
    results = ring.embed_batches(batches(7, 4))
    for _ in range(taken):
        next(results)
    assert device.at_work == (3 if taken else 0) - (1 if taken else 0)
    results.close()  # type: ignore[attr-defined]
    assert device.at_work == 0
    assert values(list(ring.embed_batches(batches(7, 4)))) == list(range(28))


def test_ring__nothing_is_left_at_work_where_the_batches_fail() -> None:
    device = Device()

    def failing() -> object:
        yield from batches(2, 4)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(Ring(device.lanes, 4).embed_batches(failing()))  # type: ignore[arg-type]
    assert device.at_work == 0


def test_ring__halves_until_there_is_the_memory_and_gives_the_same_rows(caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    ring, results = Ring(device.lanes, 10), []
    with caplog.at_level(logging.WARNING):
        for number, result in enumerate(ring.embed_batches(batches(8, 10))):
            results.append(result)
            device.room = 3 if number >= 2 else 100
    assert values(results) == list(range(80))
    assert [len(result) for result in results] == [10] * 8
    assert device.made == [10, 5, 2]
    assert set(device.sizes) == {10, 2}
    assert [record.args for record in caplog.records] == [(5,), (2,)]
    device.sizes.clear()
    assert values(list(ring.embed_batches(batches(1, 10)))) == list(range(10))
    assert device.sizes == [2] * 5


def test_ring__goes_on_where_memory_can_not_be_given_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a recording that failed, for which PyTorch before 2.12 goes on waiting."""

    def asserts() -> None:
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", asserts)
    test_ring__halves_until_there_is_the_memory_and_gives_the_same_rows(caplog)


def test_end_if_lost__ends_the_process_only_where_the_device_answers_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("pipeline.engines.cuda.os._exit", ended.append)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    end_if_lost()
    assert ended == []

    def lost() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    end_if_lost()
    assert ended == [1]


def test_ring__lanes_that_have_no_room_are_made_smaller() -> None:
    device = Device(room_for_lanes=4)
    assert values(list(Ring(device.lanes, 9).embed_batches(batches(3, 9)))) == list(range(27))
    assert device.made == [9, 4]
    assert device.sizes == [4, 4, 1] * 3  # a last part may be smaller than its lane


@pytest.mark.parametrize("device", [Device(room=0), Device(room_for_lanes=0)], ids=["a batch", "the lanes"])
def test_ring__one_image_that_has_no_room_is_an_error(device: Device) -> None:
    with pytest.raises(OutOfMemory):
        list(Ring(device.lanes, 4).embed_batches(batches(1, 4)))
    assert device.at_work == 0
