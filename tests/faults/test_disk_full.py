"""Disks that get full: a clear error, nothing half written, and the same command goes on once there is space."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests import samples
from tests.faults.small_disk import SmallDisk, small_disk
from tests.integration.processes import Surroundings
from tests.oracle import check

#: What Ray is given of memory for objects: the least that it takes.
_STORE_BYTES = 80_000_000

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture
def disk(tmp_path: Path, surroundings: Surroundings) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "80k") as disk:
        surroundings.prefix = disk.prefix
        yield disk


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    places = [tmp_path / "images" / f"{i:02d}.jpg" for i in range(40)]
    return [str(samples.write(place, samples.jpeg(i))) for i, place in enumerate(places)]


def files(table: Path) -> dict[str, bytes]:
    return {str(path.relative_to(table)): path.read_bytes() for path in table.rglob("*") if path.is_file()}


def test_embed__a_full_disk_is_told_and_the_run_goes_on_once_there_is_space(
    disk: SmallDisk, surroundings: Surroundings, images: list[str]
) -> None:
    source = Path(images[0]).parent
    arguments = ("--source", source, "--table", disk.place / "table", "--backbone", "pixels", "--unit-size", 4)
    table = disk.seen / "table"
    code, out, err = surroundings.run("embed", *arguments, "--json")
    record = json.loads(out)
    assert (code, record["status"]) == (1, "pending"), err
    assert f"No space left on device: '{disk.place}/table/" in err
    assert "Free space there, or raise the quota" in err
    assert "run the same command again" in err
    assert "Traceback" not in err
    before = files(table)
    assert 0 < record["ledger"]["embedded"] < 40
    assert len(pq.read_table(table / "data")) == record["ledger"]["embedded"]  # every file there is whole
    assert [name for name in before if not name.endswith((".parquet", "table.json"))] == []
    assert all(path.read_bytes().endswith(b"PAR1") for path in table.rglob("*.parquet"))
    disk.resize("10m")
    code, out, err = surroundings.run("embed", *arguments, "--json")
    assert code == 0, err
    assert json.loads(out)["new"]["embedded"] == 40 - record["ledger"]["embedded"]
    assert check(str(table), images).rows == sorted(images)
    after = files(table)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(("size", "file"), [("4k", "table.json"), ("8k", "plans/000000.parquet")])
def test_embed__a_disk_that_is_full_before_any_work(
    disk: SmallDisk, surroundings: Surroundings, images: list[str], size: str, file: str
) -> None:
    disk.resize(size)
    (disk.seen / "filler").write_bytes(b"x" * (4096 if file == "table.json" else 0))
    source = Path(images[0]).parent
    arguments = ("--source", source, "--table", disk.place / "table", "--backbone", "pixels", "--unit-size", 4)
    code, _, err = surroundings.run("embed", *arguments)
    assert code == 1, err
    assert f"Error: [Errno 28] No space left on device: '{disk.place}/table/{file}'. Free space there" in err
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert str(disk.place / "table" / file) not in files(disk.seen)
    disk.resize("10m")
    assert surroundings.run("embed", *arguments)[0] == 0
    check(str(disk.seen / "table"), images)


def test_embed__no_space_for_what_rays_memory_can_not_hold(
    surroundings: Surroundings, tmp_path: Path, images: list[str]
) -> None:
    """The object store's overflow goes to the temporary folder; where that is full, too, the unit stays pending."""
    comments = {tmp_path / "images" / f"more-{i:03d}.jpg": str(i).encode() for i in range(1820)}  # all different
    photograph = samples.crop(0, 224, 224)  # a smaller one would travel as it is
    for place, comment in comments.items():
        samples.write(place, samples.encode(photograph, "JPEG", comment=comment))
    surroundings.variables["RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES"] = str(_STORE_BYTES)
    arguments = ("--source", tmp_path / "images", "--table", tmp_path / "table", "--weights", "random:0")
    # The last unit, after some that grow: 900 x 224 x 224 x 3 bytes, more than the store and the disk have.
    arguments = (*arguments, "--unit-size", 900)
    with small_disk(surroundings.temporary / "d", "40m") as disk:
        whole, surroundings.temporary, surroundings.prefix = surroundings.temporary, disk.place, disk.prefix
        code, out, err = surroundings.run("embed", *arguments, "--json")
        record = json.loads(out)
        pending = record["ledger"]["pending"]
        assert code == 1, err
        assert 900 <= pending < 1860
        assert "Ray had no space for its images" in err
        assert "run the same command again" in err
        surroundings.temporary, surroundings.prefix = whole, ()
    code, out, err = surroundings.run("embed", *arguments, "--json")
    assert (code, json.loads(out)["new"]["embedded"]) == (0, pending), err
    check(str(tmp_path / "table"), [*images, *map(str, comments)])
