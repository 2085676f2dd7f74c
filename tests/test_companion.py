"""The companion of a run: signs of life, and what was embedded before."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import ray

from pipeline.companion import Companion, start_companion
from pipeline.monitor import ReadReporter, Reporter, Signs

SHA256 = [hashlib.sha256(bytes([i])).hexdigest() for i in range(3)]


@dataclass(frozen=True)
class SlowTables:
    """No tables, but it takes until there is a file ``go`` to find that out.

    Args:
        folder: Where that file will be, and ``begun`` from the moment when somebody asks.
    """

    folder: Path

    def __iter__(self) -> Iterator[Any]:
        self.folder.joinpath("begun").touch()
        wait_for(self.folder / "go")
        return iter(())


def wait_for(path: Path) -> None:
    give_up_at = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < give_up_at, f"{path.name} isn't there"
        time.sleep(0.02)


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


class Method:
    """What a handle's method is, of an actor in this process."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.remote = call


class Handle:
    """The handle of a companion in this process, that counts the calls."""

    def __init__(self) -> None:
        self.companion, self.calls = Companion([]), list[str]()

    def __getattr__(self, name: str) -> Method:
        def call(*args: object, **kwargs: object) -> None:
            self.calls.append(name)
            getattr(self.companion, name)(*args, **kwargs)

        return Method(call)


def test_reporter__tells_of_the_first_image_at_once_and_of_the_others_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle, clock = Handle(), [100.0]
    monkeypatch.setattr("pipeline.monitor.time.monotonic", lambda: clock[0])
    reporter = Reporter(handle, "embedded")
    for embedded in (1, 1, 1):
        reporter(1)
        clock[0] += 0.2
        assert handle.companion.signs() == Signs(embedded=embedded)
    reporter(2)
    assert handle.companion.signs() == Signs(embedded=5)
    reporter.flush()
    reporter.flush()
    assert (handle.companion.signs(), handle.calls) == (Signs(embedded=5), ["add", "add"])


def test_read_reporter__has_told_of_every_image_at_the_end_of_a_unit() -> None:
    handle = Handle()
    reporter = ReadReporter(handle)
    for unit in ("a", "b"):
        reporter.begin(unit)
        for _ in range(100):
            reporter.images(1)
        assert handle.companion.signs().reading == {unit}
        reporter.end(unit)
    assert handle.companion.signs() == Signs(read=200)
    assert len(handle.calls) < 20
    again = pickle.loads(pickle.dumps(ReadReporter("a handle")))  # it travels with each read task
    assert isinstance(again, ReadReporter)


def test_companion__knows_what_was_noted(tmp_path: Path) -> None:
    companion = Companion(cast(Any, SlowTables(tmp_path)))
    assert not tmp_path.joinpath("begun").exists()  # its constructor must not keep signs of life waiting
    tmp_path.joinpath("go").touch()
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


@pytest.mark.usefixtures("ray_cluster")
def test_start_companion__reads_the_tables_at_once_and_takes_signs_of_life_meanwhile(tmp_path: Path) -> None:
    companion = start_companion(cast(Any, SlowTables(tmp_path)))
    wait_for(tmp_path / "begun")
    companion.begin.remote("a")
    companion.begin.remote("b")
    companion.end.remote("a")
    companion.add.remote(embedded=2)
    assert ray.get(companion.signs.remote(), timeout=30) == Signs(embedded=2, reading=frozenset({"b"}))
    ray.get(companion.forget.remote(), timeout=30)
    assert ray.get(companion.signs.remote(), timeout=30) == Signs(embedded=2)
    tmp_path.joinpath("go").touch()
    assert ray.get(companion.find.remote(SHA256[:1]), timeout=30) == [None]
    ray.kill(companion)
