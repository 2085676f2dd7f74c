"""The soak: jobs.embed under kill -9 at random moments, over and over: python -m tests.soak.

Each run brings the same images into a fresh table. Every few seconds a process of the job is killed: the driver, one
that reads or commits, the one with the engine, or one of the two actors that keep count. The same command is started
again until it exits 0. Then the table must be exact, and no unit may have been computed again once it was committed.
Which processes are killed and when is drawn from the seed; what they were doing at that moment is not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests import samples
from tests.integration.processes import Surroundings, title
from tests.oracle import check

#: How the titles begin that Ray gives to the processes of each kind.
TITLES = {
    "reader or committer": ("ray::Read", "ray::MapBatches("),
    "engine": ("ray::MapWorker(",),
    "counter": ("ray::Companion",),
}
KINDS = ("driver", *TITLES)
#: Seconds from one kill to the next.
_BETWEEN_KILLS_S = (2.0, 6.0)
#: A driver is left alone until it has committed something, or so many seconds; otherwise no run would ever end.
_SPARED_S = 60.0
#: Kills of one run, and seconds that it may take.
_MAX_KILLS, _MAX_RUN_S = 12, 600.0
#: Seconds that one unit takes to be read and to be embedded, at least, so that there is something to interrupt.
_READ_S, _EMBED_S = 0.2, 0.5


@dataclass(frozen=True)
class Start:
    """What was there when a driver was started.

    Args:
        line: Lines of the failpoints' log.
        committed: Digests of the data files by their units' names.
    """

    line: int
    committed: dict[str, str]


@dataclass
class Run:
    """What happened in one run."""

    number: int
    kills: Counter[str] = field(default_factory=Counter)
    starts: list[Start] = field(default_factory=list)
    gave_up: int = 0
    survivors: int = 0
    repeated: int = 0
    seconds: float = 0.0
    ledger: dict[str, int] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)


def soak_once(source: Path, folder: Path, seed: str, unit_size: int = 10, number: int = 0) -> Run:
    """Bring the images into a new table, killing on the way, and return what happened.

    Args:
        source: The images.
        folder: An empty place for all that the run makes.
        seed: What the kills are drawn from.
        unit_size: Images of one unit.
        number: The run's, for the report.
    """
    run, chance, table = Run(number), random.Random(seed), folder / "table"
    surroundings = Surroundings(folder / "surroundings", cache=folder / "cache")
    log = surroundings.set_failpoints(
        *({"point": point, "action": "log"} for point in ("read", "embed", "committed")),
        {"point": "decoded", "action": "sleep", "seconds": _READ_S},
        {"point": "embed", "action": "sleep", "seconds": _EMBED_S},
    )
    planned = sorted(str(path) for path in source.rglob("*.jpg"))
    options = ("--source", source, "--table", table, "--backbone", "pixels", "--unit-size", unit_size, "--json")
    started = time.monotonic()
    try:
        while not run.ledger and not run.breaches:
            run.starts.append(Start(len(_lines(log)), _digests(table)))
            driver = surroundings.start("embed", *options)
            try:
                _kill_at_random(driver, table, run, chance)
                out, err = driver.communicate(timeout=max(1.0, started + _MAX_RUN_S - time.monotonic()))
            except subprocess.TimeoutExpired:
                run.breaches.append(f"it took more than {_MAX_RUN_S:.0f} s")
            finally:
                run.survivors += _end(driver)
            if driver.returncode == 0:
                run.ledger = json.loads(out)["ledger"]
            elif driver.returncode == 1:
                run.gave_up += 1
            elif driver.returncode > 0:
                run.breaches.append(f"exit code {driver.returncode}: {err}")
        if not run.breaches:
            _judge(run, _lines(log), table, planned)
    finally:
        shutil.rmtree(surroundings.temporary, ignore_errors=True)
    run.seconds = time.monotonic() - started
    return run


def _kill_at_random(driver: subprocess.Popen[str], table: Path, run: Run, chance: random.Random) -> None:
    """Kill processes of a job until it ends, is killed, or has been bothered enough."""
    committed, spared_until = len(_digests(table)), time.monotonic() + _SPARED_S
    while run.kills.total() < _MAX_KILLS:
        kind, pause_s = chance.choice(KINDS), chance.uniform(*_BETWEEN_KILLS_S)
        while len(_digests(table)) == committed and time.monotonic() < spared_until and driver.poll() is None:
            time.sleep(0.1)
        try:
            driver.wait(pause_s)
            return
        except subprocess.TimeoutExpired:
            pass
        if kind == "driver":
            run.kills[kind] += 1
            _end(driver)
            return
        victims = [each for each in _family(driver) if title(each).startswith(TITLES[kind])]
        if victims:
            run.kills[kind] += 1
            chance.choice(victims).kill()


def _family(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return all processes that a driver has started, and those that they have, in the order of their ids."""
    try:
        return sorted(psutil.Process(driver.pid).children(recursive=True), key=lambda process: process.pid)
    except psutil.NoSuchProcess:
        return []


def _end(driver: subprocess.Popen[str]) -> int:
    """Kill a driver if it runs, see that its cluster goes down by itself, and return how many processes did not."""
    family = _family(driver)
    driver.kill()
    driver.wait()
    _, survivors = psutil.wait_procs(family, timeout=20)
    for process in survivors:
        process.kill()
    psutil.wait_procs(survivors, timeout=10)
    return len(survivors)


def _lines(log: Path) -> list[list[str]]:
    """Return the log of the failpoints: point, unit and process id of each hit, in order."""
    path = log / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def _digests(table: Path) -> dict[str, str]:
    files = (path for path in table.glob("data/*.parquet") if not path.name.startswith("."))
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _judge(run: Run, lines: list[list[str]], table: Path, planned: list[str]) -> None:
    """Note every breach of what a run promises."""
    computed = Counter(unit for point, unit, _ in lines if point == "embed")
    run.repeated = computed.total() - len(computed)
    run.breaches += computed_after_commit(lines, run.starts)
    if run.ledger != {"planned": len(planned), "embedded": len(planned), "rejected": 0, "pending": 0, "reused": 0}:
        run.breaches.append(f"the ledger of {len(planned)} images is {run.ledger}")
    now = _digests(table)
    changed = {unit for start in run.starts for unit, digest in start.committed.items() if now.get(unit) != digest}
    run.breaches += [f"{unit} changed after it was committed" for unit in sorted(changed)]
    try:
        check(str(table), planned)
    except AssertionError as error:
        run.breaches.append(f"the table is not exact: {error}")


def computed_after_commit(lines: Sequence[Sequence[str]], starts: Sequence[Start]) -> list[str]:
    """Return a sentence for each time that the reading or embedding of a unit began once it was committed.

    A process may die between the commit and the line about it, so the data files that were there when a driver was
    started count as well.
    """
    found, committed = [], set[str]()
    for number, (point, unit, _) in enumerate(lines):
        for start in starts:
            if start.line == number:
                committed |= start.committed.keys()
        if point == "committed":
            committed.add(unit)
        elif unit in committed:
            found.append(f"{unit} was committed, and then came by at '{point}'")
    return found


def _report(runs: Sequence[Run], seed: int) -> str:
    heads = ["run", "s", "starts", *KINDS, "gave up", "survivors", "computed twice", "embedded", "breaches"]
    rows = []
    for run in runs:
        ends = (run.gave_up, run.survivors, run.repeated, run.ledger.get("embedded", 0), len(run.breaches))
        rows.append([run.number, round(run.seconds), len(run.starts), *(run.kills[kind] for kind in KINDS), *ends])
    totals = ["all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])]
    cells = [[str(cell) for cell in row] for row in (heads, *rows, totals)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(heads))]
    return f"Seed {seed}\n" + "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Do some runs, print what happened, and return 1 if anything was not as promised."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="jobs.embed under kill -9.")
    parser.add_argument("--runs", type=int, default=10, help="Runs, each with a fresh table.")
    parser.add_argument("--seed", type=int, help="What the kills are drawn from; unset: a new one.")
    parser.add_argument("--images", type=int, default=300, help="Images to embed.")
    parser.add_argument("--unit-size", type=int, default=10, help="Images of one unit.")
    options = parser.parse_args(argv)
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    print(f"--runs {options.runs} --images {options.images} --unit-size {options.unit_size} --seed {seed}", flush=True)
    runs = []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        source = samples.write_folder(Path(folder) / "images", options.images // 4)
        for number in range(1, options.runs + 1):
            run = soak_once(source, Path(folder) / f"run-{number}", f"{seed}-{number}", options.unit_size, number)
            runs.append(run)
            killed = ", ".join(f"{count} {kind}" for kind, count in run.kills.items()) or "nothing"
            print(f"run {number}: {run.seconds:.0f} s, {len(run.starts)} starts, killed {killed}", flush=True)
            for breach in run.breaches:
                print(f"  BREACH: {breach}", flush=True)
    print(_report(runs, seed))
    return 1 if any(run.breaches for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
