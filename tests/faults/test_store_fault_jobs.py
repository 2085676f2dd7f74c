"""The embedding job on a store in trouble, worker processes included: what it says, and that the table is exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.storage import Store, store_for
from tests import samples
from tests.fault_proxy import CONDITIONS, Fault, FaultProxy
from tests.jobs.test_jobs import run_embed
from tests.oracle import check
from tests.s3 import ENVIRONMENT, S3Server

pytestmark = [pytest.mark.faults, pytest.mark.s3, pytest.mark.usefixtures("ray_cluster")]

NUM_IMAGES, UNIT_SIZE = 24, 6
SECRET = ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]


class Work:
    """Images in a bucket, and a table beside them, on a way through the proxy."""

    def __init__(self, name: str, server: S3Server, proxy: FaultProxy, folder: Path) -> None:
        bucket = server.make_bucket(f"job-{name}")
        self.source, self.table, self.key = f"{bucket}/images", f"{bucket}/table", f"^/job-{name}"
        self.proxy, self.options = proxy, server.options
        self.store: Store = store_for(bucket, server.options)  # past the proxy
        self.planned = [self.put(f"{number:03d}.jpg", number) for number in range(NUM_IMAGES)]

    def put(self, name: str, seed: int) -> str:
        """Write an image."""
        uri = f"{self.source}/{name}"
        self.store.replace(uri, samples.jpeg(seed))
        return uri

    def embed(self, capsys: pytest.CaptureFixture[str], *more: object) -> tuple[int, dict[str, Any]]:
        """Run the job."""
        # One attempt a request of the client's own, so that what lasts is given up within seconds.
        options = {**self.proxy.options, "config_kwargs": {"retries": {"total_max_attempts": 2, "mode": "standard"}}}
        remote = ("--storage-options", json.dumps(options), "--table-storage-options", json.dumps(options))
        arguments = (*remote, "--unit-size", UNIT_SIZE, *more)
        code, record = run_embed(capsys, self.source, self.table, *arguments)  # type: ignore[arg-type]
        assert SECRET not in json.dumps(record)
        return code, record

    def files(self, folder: str = "") -> dict[str, str]:
        """Return the versions of the table's files, by their URIs."""
        return {info.uri: info.version for info in self.store.list_files(f"{self.table}/{folder}".rstrip("/"))}

    def check(self) -> None:
        """Ask the oracle."""
        found = check(self.table, self.planned, self.options)
        assert not found.rejects
        assert sorted(found.rows) == sorted(self.planned)
        assert not any(SECRET.encode() in self.store.read_bytes(uri) for uri in self.files())


@pytest.mark.slow
def test_embed__bursts_of_refusals_cost_no_image(
    s3_server: S3Server, proxy: FaultProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work("bursts", s3_server, proxy, tmp_path)
    faults = [
        Fault(key=work.key, every=4),
        Fault(key=work.key, every=5, code="ServiceUnavailable"),
        Fault(methods=("GET",), key=f"{work.key}/images/00[3-5].jpg", each_key=True, times=5),
        Fault("cut", methods=("GET",), key=f"{work.key}/images", every=7),
    ]
    with proxy.fault(faults[0]), proxy.fault(faults[1]), proxy.fault(faults[2]), proxy.fault(faults[3]):
        code, record = work.embed(capsys)
    assert code == 0, record["stderr"]
    assert record["new"] == {"embedded": NUM_IMAGES, "reused": 0, "rejected": 0}
    assert all(fault.hits for fault in faults)
    assert {"GET", "HEAD", "PUT"} <= {method for method, _ in faults[0].hits}
    work.check()


def test_embed__refused_access_leaves_units_pending_and_the_same_command_completes(
    s3_server: S3Server, proxy: FaultProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work("refused", s3_server, proxy, tmp_path)
    listing = Fault(key=f"{work.key}.*prefix=images", status=403, code="AccessDenied")
    with proxy.fault(listing):
        code, record = work.embed(capsys)
    assert (code, work.files()) == (2, {})
    assert f"Access Denied: '{work.source}'" in record["error"]

    planning = Fault(methods=("PUT",), key=f"{work.key}/table/plans", status=403, code="AccessDenied")
    with proxy.fault(planning):
        code, record = work.embed(capsys)
    assert (code, list(work.files())) == (2, [f"{work.table}/table.json"])
    assert f"Access Denied: '{work.table}/plans/000000.parquet'" in record["error"]

    expired = Fault(methods=("GET",), key=f"{work.key}/images", skip=10, status=400, code="ExpiredToken")
    with proxy.fault(expired):
        code, record = work.embed(capsys)
    assert (code, record["status"], record["ledger"]["rejected"]) == (1, "pending", 0)
    assert 0 < record["ledger"]["pending"] <= NUM_IMAGES
    assert "The provided token has expired" in record["stderr"]
    assert "run the same command again" in record["stderr"]
    before, pending = work.files("data"), record["ledger"]["pending"]

    commits = Fault(methods=("PUT",), key=f"{work.key}/table/data", status=403, code="AccessDenied")
    with proxy.fault(commits):
        code, record = work.embed(capsys)
    assert (code, record["ledger"]["rejected"], record["ledger"]["pending"]) == (1, 0, pending)
    assert "It can't be committed" in record["stderr"]
    assert f"Access Denied: '{work.table}/data/" in record["stderr"]
    assert (work.files("data"), work.files("manifests")) == (before, {})

    code, record = work.embed(capsys)
    assert (code, record["new"]["embedded"]) == (0, pending), record["stderr"]
    assert before.items() <= work.files("data").items()
    assert all(fault.hits for fault in (listing, planning, expired, commits))
    work.check()


@pytest.mark.slow
def test_embed__a_store_that_stays_overloaded_leaves_units_pending(
    s3_server: S3Server, proxy: FaultProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work("overloaded", s3_server, proxy, tmp_path)
    with proxy.fault(Fault(methods=("GET",), key=f"{work.key}/images/007.jpg", code="ServiceUnavailable")) as fault:
        code, record = work.embed(capsys)
    assert (code, record["ledger"]["rejected"], record["ledger"]["pending"]) == (1, 0, UNIT_SIZE)
    assert f"{work.source}/007.jpg can't be read now" in record["stderr"]
    assert "asks to slow down: Service is unable to handle request" in record["stderr"]
    assert set(fault.hits) == {("GET", f"{work.source[4:]}/007.jpg")}
    before = work.files("data")
    assert len(before) == NUM_IMAGES // UNIT_SIZE - 1
    code, record = work.embed(capsys)
    assert (code, record["new"]["embedded"]) == (0, UNIT_SIZE), record["stderr"]
    assert before.items() <= work.files("data").items()
    work.check()


def test_embed__the_answer_to_every_first_put_is_lost(
    s3_server: S3Server, proxy: FaultProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work("answers", s3_server, proxy, tmp_path)
    with proxy.fault(Fault("swallow", methods=("PUT",), key=work.key, each_key=True, times=1)) as fault:
        code, record = work.embed(capsys)
    assert (code, record["new"]) == (0, {"embedded": NUM_IMAGES, "reused": 0, "rejected": 0}), record["stderr"]
    num_units = NUM_IMAGES // UNIT_SIZE
    lost = [path.split("/")[3] for _, path in fault.hits]
    assert {name: lost.count(name) for name in set(lost)} == {
        "table.json": 1,
        "plans": 1,
        "rejects": num_units,
        "data": num_units,
        "manifests": 1,
    }
    work.check()

    # Rows leave their units by replacing files: here, too.
    for number in (2, 8, 9):
        work.put(f"{number:03d}.jpg", 100 + number)
    work.store.remove(work.planned.pop(12))
    with proxy.fault(Fault("swallow", methods=("PUT",), key=work.key, each_key=True, times=1)) as fault:
        code, record = work.embed(capsys, "--prune")
    assert (code, record["new"]) == (0, {"embedded": 3, "reused": 0, "rejected": 0}), record["stderr"]
    assert (record["source"]["changed"], record["source"]["pruned"]) == (3, 1)
    assert len([path for _, path in fault.hits if "/table/data/" in path]) == 4  # three units lose rows, one is new
    work.check()
    before = work.files()
    code, record = work.embed(capsys, "--prune")
    assert (code, record["new"]["embedded"], work.files()) == (0, 0, before)


@pytest.mark.slow
@pytest.mark.parametrize("action", ["refuse", "ignore"])
def test_embed__a_store_without_conditions_that_denies_delete(
    s3_server: S3Server, proxy: FaultProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    work = Work(f"plain-{action}", s3_server, proxy, tmp_path)
    plain = Fault(action, ("PUT",), work.key, CONDITIONS, status=501, code="NotImplemented")  # type: ignore[arg-type]
    no_delete = Fault(methods=("DELETE",), key=work.key, status=403, code="AccessDenied")
    with proxy.fault(plain), proxy.fault(no_delete):
        code, record = work.embed(capsys)
        assert (code, record["ledger"]["embedded"]) == (0, NUM_IMAGES), record["stderr"]
        assert record["stderr"].count("ignores If-None-Match") == 1
        work.check()
        before, seen = work.files(), sum(plain.hits.values())
        code, record = work.embed(capsys)
        assert (code, record["new"]["embedded"], work.files()) == (0, 0, before)
        assert sum(plain.hits.values()) == seen + 2  # the probe's
        for number in (1, 2, 7, 8, 13):
            work.put(f"{number:03d}.jpg", 100 + number)
        code, record = work.embed(capsys, "--unit-size", 2)
        assert (code, record["new"]["embedded"], record["source"]["changed"]) == (0, 5, 5), record["stderr"]
    work.check()
    assert not no_delete.hits
