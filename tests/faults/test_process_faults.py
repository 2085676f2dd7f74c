"""Processes that die, hang, sleep or compete, as jobs of their own: the table is exact all the same."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.failpoints import POINTS
from tests import samples
from tests.integration.processes import Surroundings, processes_of, title, wait_until
from tests.oracle import check

pytestmark = pytest.mark.faults


def arguments(source: Path, table: Path, unit_size: int) -> tuple[object, ...]:
    return ("--source", source, "--table", table, "--backbone", "pixels", "--unit-size", unit_size, "--json")


def write_images(folder: Path, count: int, **marked: int) -> list[str]:
    """Write JPEGs, some with a word of their own in them, and return their paths."""
    paths = []
    for i in range(count):
        comment = "".join(word for word, place in marked.items() if place == i)
        data = samples.encode(samples.crop(i), "JPEG", quality=90, comment=comment.encode())
        paths.append(str(samples.write(folder / f"{i:03d}.jpg", data)))
    return paths


def rejects(table: Path) -> dict[str, str]:
    found = pq.read_table(table / "rejects").to_pylist()
    return {Path(row["uri"]).name: row["code"] for row in found}


def run(surroundings: Surroundings, *options: object) -> tuple[int, dict[str, Any], str]:
    code, out, err = surroundings.run("embed", *options)
    return code, json.loads(out), err


def at_work(surroundings: Surroundings) -> list[str]:
    """Return the titles of Ray's processes that do something; one that has just started waits for its node a while."""
    return [name for process in processes_of(surroundings) if (name := title(process)).startswith("ray::")]


def test_embed__a_worker_that_dies_at_any_step_costs_nothing(surroundings: Surroundings, tmp_path: Path) -> None:
    planned, table = write_images(tmp_path / "images", 20, MARKED=19), tmp_path / "table"
    deaths = [
        {"point": point, "action": "exit", "times": 1, "match": "MARKED" if point == "decode" else f"-{unit:06d}"}
        for unit, point in enumerate(POINTS)
    ]
    hits = surroundings.set_failpoints(*deaths)
    code, record, err = run(surroundings, *arguments(tmp_path / "images", table, 2))
    assert (code, record["new"]) == (0, {"embedded": 20, "reused": 0, "rejected": 0}), err
    assert len(list(hits.iterdir())) == len(POINTS)  # every one of them happened
    check(str(table), planned)


def test_embed__an_image_that_kills_its_process_is_one_reject(surroundings: Surroundings, tmp_path: Path) -> None:
    planned, table = write_images(tmp_path / "images", 24, LEAVE=5, SEGFAULT=17), tmp_path / "table"
    hits = surroundings.set_failpoints(
        {"point": "decode", "action": "log", "match": "LEAVE"},
        {"point": "decode", "action": "exit", "match": "LEAVE"},
        {"point": "decode", "action": "segv", "match": "SEGFAULT"},
    )
    code, record, err = run(surroundings, *arguments(tmp_path / "images", table, 8))
    assert (code, record["rejects_by_code"]) == (0, {"crashed": 2}), err
    assert rejects(table) == {"005.jpg": "crashed", "017.jpg": "crashed"}
    assert len((hits / "log").read_text().splitlines()) == 4  # twice in its unit, twice alone
    check(str(table), planned)
    code, record, err = run(surroundings, *arguments(tmp_path / "images", table, 8))
    assert (code, record["new"]["rejected"]) == (0, 0), err


@pytest.mark.slow
def test_embed__a_hang_ends_in_a_time_out_and_can_be_resumed(surroundings: Surroundings, tmp_path: Path) -> None:
    planned, table = write_images(tmp_path / "images", 12, ASLEEP=7), tmp_path / "table"
    surroundings.set_failpoints({"point": "decode", "action": "sleep", "seconds": 900, "match": "ASLEEP"})
    options = (*arguments(tmp_path / "images", table, 4), "--stall-timeout-s", 30)
    code, record, err = run(surroundings, *options)
    assert (code, record["status"]) == (1, "pending"), err
    assert "Nothing was read, embedded or committed for" in err
    assert "run the same command again" in err
    assert record["ledger"]["rejected"] == 0
    assert record["ledger"]["embedded"] == 8
    surroundings.variables.clear()
    code, record, err = run(surroundings, *options)
    assert (code, record["new"]["embedded"]) == (0, 4), err
    check(str(table), planned)


@pytest.mark.slow
def test_embed__an_engine_that_hangs_is_stopped_too(surroundings: Surroundings, tmp_path: Path) -> None:
    planned, table = write_images(tmp_path / "images", 8), tmp_path / "table"
    # Both units: of one that hangs alone, the other passes by, and then it is tried again.
    hits = surroundings.set_failpoints({"point": "embed", "action": "spin", "seconds": 900, "times": 2})
    options = (*arguments(tmp_path / "images", table, 4), "--stall-timeout-s", 30)
    code, record, err = run(surroundings, *options)
    assert len(list(hits.iterdir())) == 2
    assert (code, record["status"]) == (1, "pending"), err
    assert "Nothing was read, embedded or committed for" in err
    code, record, err = run(surroundings, *options)
    assert (code, record["ledger"]["embedded"]) == (0, 8), err
    check(str(table), planned)


@pytest.mark.slow
def test_embed__two_drivers_at_once_make_one_exact_table(surroundings: Surroundings, tmp_path: Path) -> None:
    planned, table = write_images(tmp_path / "images", 30), tmp_path / "table"
    surroundings.set_failpoints({"point": "data_put", "action": "sleep", "seconds": 0.3})
    drivers = [surroundings.start("embed", *arguments(tmp_path / "images", table, 3)) for _ in range(2)]
    results = [driver.communicate(timeout=200) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], results
    records = [json.loads(out) for out, _ in results]
    assert [record["ledger"]["embedded"] for record in records] == [30, 30]
    assert sum(record["new"]["embedded"] for record in records) == 30  # each unit was committed by one of them
    check(str(table), planned)


@pytest.mark.slow
def test_embed__a_writer_that_slept_through_another_run_changes_nothing(
    surroundings: Surroundings, tmp_path: Path
) -> None:
    planned, table = write_images(tmp_path / "images", 8), tmp_path / "table"
    wake = tmp_path / "wake"
    hits = surroundings.set_failpoints({"point": "data_put", "action": "wait", "until": str(wake), "times": 2})
    zombie = surroundings.start("embed", *arguments(tmp_path / "images", table, 4))
    wait_until(lambda: len(list(hits.iterdir())) == 2, 120)
    surroundings.variables.clear()
    code, record, err = run(surroundings, *arguments(tmp_path / "images", table, 4))
    assert (code, record["new"]["embedded"]) == (0, 8), err
    before = {path: path.read_bytes() for path in table.rglob("*") if path.is_file()}
    wake.touch()
    out, err = zombie.communicate(timeout=120)
    assert (zombie.returncode, json.loads(out)["new"]["embedded"]) == (0, 0), err
    assert {path: path.read_bytes() for path in before} == before
    check(str(table), planned)


@pytest.mark.slow
def test_embed__images_get_out_of_settled_rejects_that_have_become_wrong(
    surroundings: Surroundings, tmp_path: Path
) -> None:
    planned, table = write_images(tmp_path / "images", 8), tmp_path / "table"
    Path(planned[1]).write_bytes(b"")
    surroundings.set_failpoints({"point": "data_put", "action": "exit", "match": "-000000"})  # its rejects are settled
    options = (*arguments(tmp_path / "images", table, 4), "--max-reject-fraction", 0.5)
    code, record, err = run(surroundings, *options)
    assert (code, record["ledger"]["pending"]) == (1, 4), err
    assert "while embedding or committing it" in err
    Path(planned[2]).write_bytes(b"no image any more")
    surroundings.variables.clear()
    code, record, err = run(surroundings, *options)
    assert (code, record["ledger"]) == (
        0,
        {"planned": 8, "embedded": 6, "rejected": 2, "pending": 0, "reused": 0},
    ), err
    assert rejects(table) == {"001.jpg": "empty", "002.jpg": "unsupported"}
    check(str(table), planned)


@pytest.mark.slow
@pytest.mark.parametrize("committed", [1, 6, 11])
def test_embed__kill_9_of_the_driver_after_some_units(
    surroundings: Surroundings, tmp_path: Path, committed: int
) -> None:
    planned, table = write_images(tmp_path / "images", 24), tmp_path / "table"
    surroundings.set_failpoints({"point": "data_put", "action": "sleep", "seconds": 0.2})
    options = arguments(tmp_path / "images", table, 2)
    process = surroundings.start("embed", *options)
    wait_until(lambda: len(list(table.glob("data/*.parquet"))) >= committed, 120)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_until(lambda: not at_work(surroundings), 60)  # one that was committing ends a moment later
    before = {path: path.read_bytes() for path in table.glob("data/*.parquet")}
    code, record, err = run(surroundings, *options)
    assert (code, record["ledger"]["embedded"]) == (0, 24), err
    assert record["new"]["embedded"] == 24 - 2 * len(before)
    assert {path: path.read_bytes() for path in before} == before
    check(str(table), planned)
