"""A state machine that lets drivers, tasks and zombies loose on one table, a step at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from pipeline.errors import TransientError
from pipeline.table import Table, commit_unit, create_table, plan_retry
from tests.memory_store import Fate, MemoryStore, Writer
from tests.table.actions import ACTIONS, BEGINNINGS, MOST_WRITERS, TOGETHER
from tests.table.actors import CONTAINERS, INFO, NEVER_REMOVED, SOURCES, Commit, Run, World
from tests.table.oracle import Oracle

#: Steps of one writer after which it can only be going round in a circle.
_MOST_STEPS = 5_000
#: Rounds over all sources after which nothing may be left to do: a run that ends may leave work to another source's.
_MOST_ROUNDS = 5


class CommitProtocol(RuleBasedStateMachine):
    """Any number of runs at once on one table; whatever happens to them, the table keeps its promises.

    Args:
        commit: Commits a unit.
        store_class: What holds the table.
    """

    commit: Commit = staticmethod(commit_unit)
    store_class: type[MemoryStore] = MemoryStore
    steps_taken = 0

    def __init__(self) -> None:
        super().__init__()
        self.store, self.world = self.store_class(), World()
        self.table = Table("t", self.store)
        create_table(self.table, INFO)
        self.oracle = Oracle(self.store, "t")
        self.writers: list[Writer] = []
        self.runs: list[Run] = []
        self.started = 0
        self.sources: tuple[str, ...] = tuple(SOURCES)
        self.sound = True
        self.story: list[str] = []

    def _start(self, name: str, work: Callable[[], object]) -> None:
        self.writers.append(Writer(self.store, name, work))
        self._judge()

    def _new_run(self, source: str) -> Run:
        self.started += 1
        run = Run(self.table, self.world, source, f"run{self.started}", type(self).commit)
        self.runs.append(run)
        return run

    @initialize(sources=st.sampled_from(TOGETHER), beginning=st.sampled_from(BEGINNINGS))
    def prepare(self, sources: tuple[str, ...], beginning: str) -> None:
        """Begin where it takes chance long to get to.

        Args:
            sources: Which sources take part.
            beginning: ``done``: a run over each has come to its end. ``changed``: after that, an image has changed.
                ``bound``: a process died after it had settled a unit's rejects, and an image became unreadable then.
        """
        self.sources = sources
        for source in sources if "done" in beginning else ():
            self._run_alone(source)
        if "changed" in beginning:
            self.turn("change", 0, (0, 0))
        if "bound" in beginning:
            run = self._new_run(sources[0])
            self._start(run.name, lambda: run.work(lambda: run.plan(False)))
            for writer in list(self.writers):
                self._go_to(writer, "rejects")
                self._step(writer, Fate.CRASHES_AFTER)
            self.turn("mend or break", 0, (0, 0))

    @rule(action=ACTIONS)
    def act(self, action: tuple[Any, ...]) -> None:
        """Do one of the actions below, if it is possible by now. They are one rule, so that all of them stay likely."""
        name, *arguments = action
        getattr(self, name)(*arguments)

    def start(self, source: int, kind: str, changed: int | None) -> None:
        """Let another driver come, after one of its images has changed or none."""
        if len(self.writers) == MOST_WRITERS:
            return
        if changed is not None:
            self.turn("change", source, (changed, 0))
        if kind == "retry":
            self._start("retry", self._retry)
            return
        run = self._new_run(self.sources[source % len(self.sources)])
        self._start(run.name, lambda: run.work(lambda: run.plan(kind == "prune")))

    def _retry(self) -> None:
        for source, planned in plan_retry(self.table, INFO.digest, ()).items():
            self._new_run(source).work(lambda planned=planned: planned)  # type: ignore[misc]

    def start_task(self, which: int, unit: int, image: tuple[int, int]) -> None:
        """Let another process try a unit, as Ray does where it takes one for lost; one image it may find unreadable."""
        runs = [run for run in self.runs if run.tried]
        if len(self.writers) == MOST_WRITERS or not runs:
            return
        run = runs[-1 - which % len(runs)]
        tried = list(run.tried)[-1 - unit % len(run.tried)]
        unreadable = {self._image(list(self.sources).index(run.source), *image)}
        self._start(f"{run.name} task {tried.name}", lambda: run.task(tried, unreadable))

    def turn(self, what: str, source: int, image: tuple[int, int]) -> None:
        """Let the world go on."""
        name = self._name(source, image[0])
        if what == "change":
            self.world.versions[name] += 1
        elif what == "mend or break":
            self.world.unreadable ^= {self._image(source, *image)}
        else:
            self.world.listed[self.sources[source % len(self.sources)]] ^= {name} - NEVER_REMOVED

    def go(self, which: int, steps: int) -> None:
        """Let a writer take a few steps."""
        for writer in self._writer(which):
            for _ in range(steps):
                self._step(writer)

    def go_to(self, which: int, folder: str, passes: int, beyond: bool) -> None:
        """Let a writer go on until it is about to write into a folder, after some such writes; or has done so."""
        for writer in self._writer(which):
            for _ in range(passes):
                self._go_to(writer, folder)
                self._step(writer)
            self._go_to(writer, folder)
            if beyond:
                self._step(writer)

    def finish(self, which: int) -> None:
        """Let a writer come to its end."""
        for writer in self._writer(which):
            self._go_to(writer, None)

    def trouble(self, which: int, fate: Fate) -> None:
        """Let something happen to a writer's next write."""
        for writer in self._writer(which):
            self._go_to(writer, "")
            self._step(writer, fate)

    def _name(self, source: int, name: int) -> str:
        names = SOURCES[self.sources[source % len(self.sources)]][0]
        return names[name % len(names)]

    def _image(self, source: int, name: int, member: int) -> str:
        holder = self._name(source, name)
        return f"{holder}#{member}" if holder in CONTAINERS else holder

    def _writer(self, which: int) -> list[Writer]:
        return [self.writers[-1 - which % len(self.writers)]] if self.writers else []

    def _step(self, writer: Writer, fate: Fate = Fate.HAPPENS) -> None:
        if writer.next is None:
            return
        CommitProtocol.steps_taken += 1
        wrote = writer.next.writes
        if wrote:
            self.story.append(f"{writer.name}: {writer.next.name} {writer.next.uri} {fate.value}")
        writer.step(fate)
        self._judge()

    def _judge(self) -> None:
        """Look at the table, and at what writers that have come to their end say."""
        self.sound = False
        self.oracle.check()
        ended = [writer for writer in self.writers if writer.next is None]
        self.writers = [writer for writer in self.writers if writer.next is not None]
        for writer in ended:
            if writer.error is not None:
                self.story.append(f"{writer.name} ended: {writer.error!r}")
                if not isinstance(writer.error, (OSError, TransientError)):
                    raise writer.error
        for run in [run for run in self.runs if run.status == "done"]:
            self._check_status(run)
            run.status = "checked"
        self.sound = True

    def _check_status(self, run: Run) -> None:
        """A run that says that all is done has left nothing of what it listed, by the plans that it knew."""
        assert run.planned is not None
        holders = self.oracle.holders(run.planned.plans[-1].sequence)
        committed = self.oracle.files("data")
        for name in run.listed:
            unit = holders.get((name, run.source == "tar"))  # none where another run has taken it back
            assert unit is None or unit in committed, f"{run.name} says done, but {name} of {unit} is pending"

    def _go_to(self, writer: Writer, folder: str | None) -> None:
        for _ in range(_MOST_STEPS):
            if writer.next is None or (writer.next.writes and folder is not None and f"/{folder}" in writer.next.uri):
                return
            self._step(writer)
        raise AssertionError(f"{writer.name} does not come to an end: {writer.next}")

    def teardown(self) -> None:
        """End all processes, and let one honest driver after the other finish the job."""
        for writer in self.writers:
            writer.crash()
        if self.sound:
            self.writers.clear()
            self._drain()
        else:
            note("\n".join(self.story))

    def _drain(self) -> None:
        for _ in range(_MOST_ROUNDS):
            before = dict(self.store.files)
            last = [self._run_alone(source) for source in self.sources]
            if self.store.files == before:
                break
        else:
            raise AssertionError(f"{_MOST_ROUNDS} rounds over all sources, and the table still changes")
        self.oracle.check_done()
        rows = {folder: self.oracle.rows(folder) for folder in ("data", "rejects")}
        for run in last:
            assert run.planned is not None
            assert run.ledger is not None
            names = [unit.name for unit in run.planned.units]
            found = [sum(len(rows[folder][name]) for name in names) for folder in ("data", "rejects")]
            assert [run.ledger.embedded, run.ledger.rejected] == found
            assert (run.ledger.planned, run.ledger.pending) == (sum(found), 0)
        self._check_versions()

    def _run_alone(self, source: str) -> Run:
        run = self._new_run(source)
        self._start(run.name, lambda: run.work(lambda: run.plan(False)))
        for writer in self.writers:
            self._go_to(writer, None)
            assert writer.error is None, f"a driver that is alone fails: {writer.error!r}"
        return run

    def _check_versions(self) -> None:
        """Whatever is listed is in the table as it is by now, all members of containers included."""
        wanted = {
            uri: str(self.world.versions[name])
            for source in self.sources
            for name in self.world.listed[source]
            for uri in self.world.members(name)
        }
        files = [*self.oracle.rows("data").values(), *self.oracle.rows("rejects").values()]
        found = {uri: row["sha256"] for rows in files for uri, row in rows.items()}
        assert {uri: found.get(uri) for uri in wanted} == wanted
