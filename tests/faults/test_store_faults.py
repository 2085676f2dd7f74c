"""The store on a server that is overloaded, loses its answers, or doesn't know the conditions of a PUT."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.heads import load_head, save_head
from pipeline.storage import Conditions, Store, store_for
from tests.fault_proxy import CONDITIONS, Fault, FaultProxy
from tests.heads.linear import linear_head
from tests.s3 import S3Server

pytestmark = [pytest.mark.faults, pytest.mark.s3]

CONTENT = bytes(range(256)) * 1200
#: More refusals in a row than the client sits out by itself.
BURST = {"SlowDown": 4, "ServiceUnavailable": 4}


@pytest.fixture
def bucket(s3_server: S3Server, request: pytest.FixtureRequest) -> str:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")[-40:].strip("-")
    return s3_server.make_bucket(f"faults-{name}")


@pytest.fixture
def store(proxy: FaultProxy, bucket: str) -> Store:
    return store_for(bucket, proxy.options)


@pytest.mark.parametrize("code", BURST)
def test_every_operation__sits_out_a_burst_of_refusals(
    store: Store, bucket: str, s3_server: S3Server, proxy: FaultProxy, code: str
) -> None:
    server = store_for(bucket, s3_server.options)
    for name in ("read", "part", "open", "old", "info", "gone"):
        server.replace(f"{bucket}/{name}/x", CONTENT)
    seen = server.info(f"{bucket}/old/x")
    assert seen is not None
    operations: list[tuple[Callable[[], object], object]] = [
        (lambda: store.read_bytes(f"{bucket}/read/x"), CONTENT),
        (lambda: store.read_bytes(f"{bucket}/part/x", 9), CONTENT[:10]),
        (lambda: store.open(f"{bucket}/open/x").read(), CONTENT),
        (lambda: getattr(store.info(f"{bucket}/info/x"), "size", None), len(CONTENT)),
        (lambda: [info.uri for info in store.list_files(f"{bucket}/read")], [f"{bucket}/read/x"]),
        (lambda: [info.uri for info in store.glob(f"{bucket}/part/*")], [f"{bucket}/part/x"]),
        (lambda: store.list_names(f"{bucket}/open"), ["x"]),
        (lambda: list(store.written_at(f"{bucket}/info")), ["x"]),
        (lambda: store.is_folder(f"{bucket}/old"), True),
        (lambda: store.put_if_absent(f"{bucket}/new/x", b"new"), True),
        (lambda: store.replace(f"{bucket}/replaced/x", b"new"), None),
        (lambda: store.replace_if(f"{bucket}/old/x", b"new", seen.version), True),
        (lambda: store.remove(f"{bucket}/gone/x"), None),
    ]
    with (
        proxy.fault(Fault(key=f"^/{bucket[5:]}", each_key=True, times=BURST[code], code=code)) as fault,
        ThreadPoolExecutor(len(operations)) as pool,
    ):
        answers = list(pool.map(lambda operation: operation[0](), operations))
    assert answers == [expected for _, expected in operations]
    assert {method for method, _ in fault.hits} == {"GET", "HEAD", "PUT", "DELETE"}
    assert set(fault.hits.values()) == {BURST[code]}
    left = {info.uri: info.size for info in server.list_files(bucket)}
    sizes = {"read": len(CONTENT), "part": len(CONTENT), "open": len(CONTENT), "info": len(CONTENT)}
    sizes.update({"new": 3, "replaced": 3, "old": 3})
    assert left == {f"{bucket}/{name}/x": size for name, size in sizes.items()}


def test_read_bytes__a_burst_does_not_slow_down_what_comes_after_it(
    store: Store, bucket: str, proxy: FaultProxy
) -> None:
    uris = [f"{bucket}/{number:03d}" for number in range(100)]
    for uri in uris:
        store.replace(uri, b"x" * 100)
    with proxy.fault(Fault(key=f"^/{bucket[5:]}", times=40)), ThreadPoolExecutor(32) as pool:
        started = time.monotonic()
        answers = list(pool.map(lambda uri: store.read_bytes(uri, 1000), uris))
    assert answers == [b"x" * 100] * 100
    assert time.monotonic() - started < 20  # with a client that adapts its rate: minutes


@pytest.mark.parametrize(
    "fault",
    [
        Fault(code="ServiceUnavailable", skip=2, times=5),  # the client tries 3 times
        Fault("cut", skip=2, times=7),  # the file of s3fs tries 5 times
        Fault("swallow", skip=1, every=2),
    ],
    ids=["refused", "cut", "swallowed"],
)
def test_open__reading_on_in_a_file_survives(store: Store, bucket: str, proxy: FaultProxy, fault: Fault) -> None:
    store.replace(f"{bucket}/shard.tar", CONTENT)
    fault.methods, fault.key = ("GET",), f"^/{bucket[5:]}"
    with proxy.fault(fault), store.open(f"{bucket}/shard.tar", 2**14) as file:
        assert b"".join(iter(lambda: file.read(10_000), b"")) == CONTENT
        file.seek(1000)
        assert file.read(100) == CONTENT[1000:1100]
    assert sum(fault.hits.values()) >= 5


def test_open__trouble_that_lasts_is_an_error_of_the_storage(store: Store, bucket: str, proxy: FaultProxy) -> None:
    store.replace(f"{bucket}/shard.tar", CONTENT)
    with store.open(f"{bucket}/shard.tar", 2**14) as file:
        file.read(10)
        refused = Fault(methods=("GET",), key=f"^/{bucket[5:]}", status=403, code="ExpiredToken")
        with proxy.fault(refused), pytest.raises(PermissionError, match=f"token has expired: '{bucket}/shard.tar'"):
            file.read()


def test_put_if_absent__a_lost_answer_is_no_second_writer(store: Store, bucket: str, proxy: FaultProxy) -> None:
    uri = f"{bucket}/x"
    with proxy.fault(Fault("swallow", methods=("PUT",), key=f"^/{bucket[5:]}", times=1)) as fault:
        assert not store.put_if_absent(uri, b"mine")  # nobody can tell: the caller looks whose it is
    assert (sum(fault.hits.values()), store.read_bytes(uri)) == (1, b"mine")
    with proxy.fault(Fault("swallow", methods=("PUT",), key=f"^/{bucket[5:]}", times=1)):
        store.replace(uri, b"newer")
    seen = store.info(uri)
    assert seen is not None
    with proxy.fault(Fault("swallow", methods=("PUT",), key=f"^/{bucket[5:]}", times=1)):
        assert not store.replace_if(uri, b"newest", seen.version)
    assert store.read_bytes(uri) == b"newest"


def test_writing__one_that_another_writer_is_at_is_tried_again(store: Store, bucket: str, proxy: FaultProxy) -> None:
    conflict = Fault(methods=("PUT",), key=f"^/{bucket[5:]}", times=3, status=409, code="ConditionalRequestConflict")
    with proxy.fault(conflict):
        assert store.put_if_absent(f"{bucket}/x", b"mine")
    assert sum(conflict.hits.values()) == 3


def test_save_head__every_answer_is_lost_once(store: Store, bucket: str, proxy: FaultProxy) -> None:
    head = linear_head()
    with proxy.fault(Fault("swallow", methods=("PUT",), key=f"^/{bucket[5:]}", each_key=True, times=1)) as fault:
        save_head(head, f"{bucket}/head", proxy.options)
    assert len(fault.hits) == 2
    assert load_head(f"{bucket}/head", proxy.options).sha256 == head.sha256


#: Conditions that a store doesn't mind, and what it does about them.
LACKING = [
    pytest.param("refuse", CONDITIONS, Conditions(create=False, replace=False), id="not implemented"),
    pytest.param("ignore", CONDITIONS, Conditions(create=False, replace=False), id="ignored"),
    pytest.param("ignore", ("If-Match",), Conditions(create=True, replace=False), id="no If-Match"),
    pytest.param("ignore", ("If-None-Match",), Conditions(create=False, replace=True), id="no If-None-Match"),
    pytest.param("ignore", ("If-None-Matches",), Conditions(), id="all there"),
]


@pytest.mark.parametrize(("action", "headers", "expected"), LACKING)
def test_probed__finds_out_and_leaves_everything_as_it_is(
    store: Store,
    bucket: str,
    s3_server: S3Server,
    proxy: FaultProxy,
    action: str,
    headers: tuple[str, ...],
    expected: Conditions,
) -> None:
    uri = f"{bucket}/table.json"
    assert store.put_if_absent(uri, b"{}")
    before = list(store.list_files(bucket))
    lacking = Fault(action, ("PUT",), f"^/{bucket[5:]}", headers, status=501, code="NotImplemented")  # type: ignore[arg-type]
    no_delete = Fault(methods=("DELETE",), status=403, code="AccessDenied")
    with proxy.fault(lacking), proxy.fault(no_delete):
        probed = store.probed(uri)
        assert probed.conditions == expected
        assert list(store.list_files(bucket)) == before
        assert not probed.put_if_absent(uri, b"second")
        assert probed.read_bytes(uri) == b"{}"
        assert probed.put_if_absent(f"{bucket}/other", b"first")
        seen = probed.info(uri)
        assert seen is not None
        assert probed.replace_if(uri, b"newer", seen.version)
        assert not probed.replace_if(uri, b"zombie", seen.version)
        assert not probed.replace_if(f"{bucket}/nothing", b"zombie", seen.version)
        assert probed.read_bytes(uri) == b"newer"
        assert {info.uri for info in store.list_files(bucket)} == {uri, f"{bucket}/other"}
    assert not no_delete.hits


def test_probed__a_store_that_allows_no_such_put_is_taken_to_mind(store: Store, bucket: str, proxy: FaultProxy) -> None:
    store.replace(f"{bucket}/table.json", b"{}")
    with proxy.fault(Fault(methods=("PUT",), key=f"^/{bucket[5:]}", status=403, code="AccessDenied")) as fault:
        assert store.probed(f"{bucket}/table.json").conditions == Conditions()
    assert sum(fault.hits.values()) == 2


def test_put_if_absent__a_store_that_ignores_conditions_is_not_noticed_without_probing(
    store: Store, bucket: str, proxy: FaultProxy
) -> None:
    store.replace(f"{bucket}/x", b"first")
    with proxy.fault(Fault("ignore", ("PUT",), f"^/{bucket[5:]}", CONDITIONS)):
        assert store.put_if_absent(f"{bucket}/x", b"second")
    assert store.read_bytes(f"{bucket}/x") == b"second"
