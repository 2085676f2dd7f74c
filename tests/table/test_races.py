"""Schedules in which the commit layer once broke a promise, one by one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest

from pipeline.table import Table, create_table
from tests.memory_store import Fate, MemoryStore, Writer
from tests.table.actors import INFO, Run, World
from tests.table.oracle import Oracle


class Stage:
    """One table, and drivers that go on when they are told to."""

    def __init__(self) -> None:
        self.store, self.world = MemoryStore(), World()
        self.world.listed["folder"] = {"a", "b"}
        self.table = Table("t", self.store)
        create_table(self.table, INFO)
        self.writers: list[Writer] = []

    def driver(self, prune: bool = False) -> Writer:
        run = Run(self.table, self.world, "folder", f"run{len(self.writers)}")
        self.writers.append(Writer(self.store, run.name, lambda: run.work(lambda: run.plan(prune))))
        return self.writers[-1]

    def go_to(self, writer: Writer, place: str) -> None:
        """Let a writer go on until it is about to write to some place."""
        while writer.next is not None and not (writer.next.writes and f"t/{place}" in writer.next.uri):
            writer.step()
        assert writer.next is not None, f"it never writes to {place}"

    def finish(self, writer: Writer) -> None:
        while writer.next is not None:
            writer.step()
        assert writer.error is None or isinstance(writer.error, OSError)

    def check_manifests(self) -> None:
        for uri, content in self.store.files.items():
            for file in json.loads(content)["files"] if "/manifests/" in uri else ():
                now = self.store.files[f"t/{file['path']}"]
                assert hashlib.sha256(now).hexdigest() == file["sha256"], file["path"]

    def check_done(self) -> None:
        """Let one more driver finish, and look at what there is."""
        self.finish(self.driver())
        self.check_manifests()
        Oracle(self.store, "t").check_done()


@pytest.fixture
def stage(one_at_a_time: None) -> Iterator[Stage]:
    stage = Stage()
    yield stage
    for writer in stage.writers:
        writer.crash()


def test_write_manifest__digests_of_files_that_another_run_has_replaced_since_are_not_used(stage: Stage) -> None:
    slow = stage.driver()
    stage.go_to(slow, "manifests/")
    stage.world.versions["a"] += 1
    other = stage.driver()
    stage.go_to(other, "data/000001")
    other.step(Fate.CRASHES_AFTER)
    stage.finish(slow)
    stage.check_manifests()
    stage.check_done()


@pytest.mark.parametrize("writes", [0, 1])
def test_forget_files__a_run_that_looked_at_the_files_before_does_not_name_them_afterwards(
    stage: Stage, writes: int
) -> None:
    """Whether the slow run is about to write the first manifest or the one that names the files."""
    slow = stage.driver()
    stage.go_to(slow, "manifests/")
    for _ in range(writes):
        slow.step()
        stage.go_to(slow, "manifests/")
    stage.world.versions["a"] += 1
    other = stage.driver()
    stage.go_to(other, "data/000001")
    other.step()
    stage.finish(slow)
    stage.check_manifests()
    stage.finish(other)
    stage.check_done()


def test_replan__two_runs_promise_again_what_a_third_one_cannot_commit(stage: Stage) -> None:
    """The third goes on with the last of the new units; the one between, which promises nothing any more, is left."""
    first = stage.driver()
    stage.go_to(first, "data/")
    first.crash()
    stage.world.unreadable = {"a"}
    slow = stage.driver()
    stage.go_to(slow, "rejects/000000")
    second = stage.driver()
    stage.go_to(second, "rejects/000001")
    second.step(Fate.CRASHES_AFTER)
    stage.world.unreadable = {"b"}
    third = stage.driver()
    stage.go_to(third, "plans/000002")
    third.step(Fate.CRASHES_AFTER)
    stage.finish(slow)
    assert slow.error is None
    Oracle(stage.store, "t").check_done()
    stage.check_done()
