"""The remote store on a real S3 protocol server."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.storage import Store, store_for
from tests.s3 import S3Server

pytestmark = pytest.mark.s3


@pytest.fixture
def bucket(s3_server: S3Server, request: pytest.FixtureRequest) -> str:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")[-50:].strip("-")
    return s3_server.make_bucket(name)


@pytest.fixture
def store(s3_server: S3Server) -> Store:
    return store_for("s3://x", s3_server.options)


def test_put_if_absent__the_first_writer_wins(store: Store, bucket: str) -> None:
    uri = f"{bucket}/deep/file"
    assert store.put_if_absent(uri, b"first")
    assert not store.put_if_absent(uri, b"second")
    assert store.read_bytes(uri) == b"first"


def test_put_if_absent__exactly_one_of_many_writers_wins(store: Store, bucket: str) -> None:
    uri, values = f"{bucket}/file", [str(i).encode() * 1000 for i in range(12)]
    with ThreadPoolExecutor(12) as pool:
        won = list(pool.map(lambda value: store.put_if_absent(uri, value), values))
    assert sum(won) == 1
    assert store.read_bytes(uri) == values[won.index(True)]


def test_replace_if__only_the_version_that_was_seen(store: Store, bucket: str) -> None:
    uri = f"{bucket}/file"
    store.replace(uri, b"old")
    seen = store.info(uri)
    assert seen is not None
    assert store.replace_if(uri, b"newer", seen.version)
    assert not store.replace_if(uri, b"zombie", seen.version)
    assert store.read_bytes(uri) == b"newer"


def test_read_bytes__limit_and_emptiness_and_absence(store: Store, bucket: str) -> None:
    store.replace(f"{bucket}/ten", bytes(10))
    store.replace(f"{bucket}/empty", b"")
    assert store.read_bytes(f"{bucket}/ten", 4) == bytes(5)
    assert store.read_bytes(f"{bucket}/ten", 10) == bytes(10)
    assert store.read_bytes(f"{bucket}/empty", 4) == b""
    assert store.read_bytes(f"{bucket}/empty") == b""
    for uri in (f"{bucket}/none", "s3://no-such-bucket/x"):
        with pytest.raises(FileNotFoundError):
            store.read_bytes(uri, 10)
        assert store.info(uri) is None


NAMES = [
    "/empty.jpg",
    "x//y.jpg",
    "a b.jpg",
    "a#b.jpg",
    "a%20b.jpg",
    "a?b=c&d.jpg",
    "a+b.jpg",
    "ünï.jpg",
    "[x]*.jpg",
    "{y}.jpg",
    "~z.jpg",
]


def test_list_files__any_key_in_order_of_names_without_hidden_ones(
    store: Store, bucket: str, s3_server: S3Server
) -> None:
    s3_server.client().put_object(Bucket=bucket[5:], Key="root/sub/", Body=b"")  # as consoles make an empty folder
    for name in NAMES:
        store.replace(f"{bucket}/root/{name}", name.encode())
    for name in ("root/.hidden.jpg", "root/.git/x.jpg", "root/sub/.x/y.jpg", "rooted/other.jpg"):
        store.replace(f"{bucket}/{name}", b"")
    store.replace(f"{bucket}/root/sub/deep/z.jpg", b"z")
    found = {info.uri: info for info in store.list_files(f"{bucket}/root")}
    assert set(found) == {f"{bucket}/root/{name}" for name in [*NAMES, "sub/deep/z.jpg"]}
    assert list(found) == sorted(found, key=lambda uri: uri.encode())
    for name in NAMES:
        assert store.read_bytes(f"{bucket}/root/{name}", 100) == name.encode()
        assert found[f"{bucket}/root/{name}"].size == len(name.encode())


def test_list_files__follows_the_pages_of_a_long_listing(store: Store, bucket: str, s3_server: S3Server) -> None:
    client, names = s3_server.client(), [f"{a}/{b:04d}.jpg" for a in range(3) for b in range(700)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: client.put_object(Bucket=bucket[5:], Key=f"p/{name}", Body=b""), names))
    assert [info.uri for info in store.list_files(f"{bucket}/p")] == [f"{bucket}/p/{name}" for name in names]
    assert len(list(store.list_files(bucket))) == len(names)
    flat = [f"{i:05d}.jpg" for i in range(1200)]  # more than a page of files in one folder, and a folder beside them
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: client.put_object(Bucket=bucket[5:], Key=f"q/{name}", Body=b""), [*flat, "0/x.jpg"]))
    expected = [f"{bucket}/q/{name}" for name in sorted([*flat, "0/x.jpg"])]
    assert [info.uri for info in store.list_files(f"{bucket}/q")] == expected


def test_is_folder_and_list_names(store: Store, bucket: str) -> None:
    store.replace(f"{bucket}/a/b.jpg", b"")
    store.replace(f"{bucket}/a/c/d.jpg", b"")
    assert store.is_folder(f"{bucket}/a")
    assert store.is_folder(bucket)
    assert not store.is_folder(f"{bucket}/a/b.jpg")
    assert not store.is_folder(f"{bucket}/none")
    assert not store.is_folder("s3://no-such-bucket")
    assert store.list_names(f"{bucket}/a") == ["b.jpg", "c"]
    assert store.list_names(f"{bucket}/none") == []


def test_glob(store: Store, bucket: str) -> None:
    for name in ("s/shard-0.tar", "s/shard-1.tar", "s/x.txt"):
        store.replace(f"{bucket}/{name}", b"x")
    assert [info.uri for info in store.glob(f"{bucket}/s/*.tar")] == [f"{bucket}/s/shard-{i}.tar" for i in range(2)]


@pytest.mark.parametrize("block_bytes", [16, 2**20])
def test_open__reads_here_and_there(store: Store, bucket: str, block_bytes: int) -> None:
    data = bytes(range(256)) * 40
    store.replace(f"{bucket}/file", data)
    with store.open(f"{bucket}/file", block_bytes) as file:
        file.seek(-10, 2)
        assert file.read() == data[-10:]
        file.seek(1000)
        assert file.read(300) == data[1000:1300]
    with pytest.raises(FileNotFoundError):
        store.open(f"{bucket}/none")


def test_remote_store__travels_and_compares_by_its_options(store: Store, bucket: str) -> None:
    other: Store = pickle.loads(pickle.dumps(store))
    assert other == store
    assert hash(other) == hash(store)
    other.replace(f"{bucket}/x", b"1")
    assert store.read_bytes(f"{bucket}/x") == b"1"


def test_remote_store__without_credentials_says_what_to_do(
    s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    options = {**s3_server.options, "skip_instance_cache": True}
    with pytest.raises(PermissionError, match="Set AWS_ACCESS_KEY_ID"):
        store_for(bucket, options).read_bytes(f"{bucket}/x")
    assert store_for(bucket, {**options, "anon": True}).info(f"{bucket}/x") is None
