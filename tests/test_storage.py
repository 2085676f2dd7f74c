"""Files: create-only puts, listing, and the spelling of URIs."""

from __future__ import annotations

import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.storage.retry import ATTEMPTS, retried

STORE = storage.LocalStore()


def test_put_if_absent__the_first_writer_wins(tmp_path: Path) -> None:
    uri = str(tmp_path / "deep" / "file")
    assert STORE.put_if_absent(uri, b"first")
    assert not STORE.put_if_absent(uri, b"second")
    assert Path(uri).read_bytes() == b"first"
    assert os.listdir(tmp_path / "deep") == ["file"]


def test_put_if_absent__exactly_one_of_many_writers_wins(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    values = [str(i).encode() * 10_000 for i in range(16)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda value: STORE.put_if_absent(uri, value), values))
    assert sum(won) == 1
    assert Path(uri).read_bytes() == values[won.index(True)]


def test_put_if_absent__works_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    uri = str(tmp_path / "file")
    assert STORE.put_if_absent(uri, b"first")
    assert not STORE.put_if_absent(uri, b"second")
    assert [name for name in os.listdir(tmp_path) if name != ".lock"] == ["file"]


def test_put_if_absent__a_failing_link_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OSError, match="Input/output"):
        STORE.put_if_absent(str(tmp_path / "file"), b"first")
    assert os.listdir(tmp_path) == []


def test_replace__leaves_nothing_but_the_new_file(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    STORE.replace(uri, b"old")
    STORE.replace(uri, b"new")
    assert Path(uri).read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_list_files__walks_in_name_order_and_skips_hidden(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a", "c/.hidden/x", ".dot", "c/3"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert [os.path.relpath(info.uri, tmp_path) for info in STORE.list_files(str(tmp_path))] == [
        "a",
        "b/1",
        "b/2",
        "c/3",
    ]


def test_list_files__follows_links_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("x")
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "other")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "root" / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "root" / "pipe")
    names = [os.path.relpath(info.uri, tmp_path / "root") for info in STORE.list_files(str(tmp_path / "root"))]
    assert names == ["circle", "dangling", "linked/x"]
    for name in names[:2]:
        with pytest.raises(FileNotFoundError):
            STORE.read_bytes(str(tmp_path / "root" / name), 10)


def test_list_files__many_folders_keep_the_order_of_their_names(tmp_path: Path) -> None:
    expected = []
    for a in range(6):
        for b in range(40):
            path = tmp_path / f"{a}" / f"{b:02d}" / "x"
            path.parent.mkdir(parents=True)
            path.write_text("")
            expected.append(str(path))
    (tmp_path / "3" / "00a").write_text("")
    expected.insert(expected.index(f"{tmp_path}/3/01/x"), f"{tmp_path}/3/00a")
    assert [info.uri for info in STORE.list_files(str(tmp_path))] == expected


def test_list_files__stops_when_the_reader_does_and_raises_what_went_wrong(tmp_path: Path) -> None:
    for a in range(50):
        (tmp_path / f"{a:02d}").mkdir()
        (tmp_path / f"{a:02d}" / "x").write_text("")
    files = STORE.list_files(str(tmp_path))
    assert next(files).uri.endswith("00/x")
    files.close()  # type: ignore[attr-defined]
    with pytest.raises(FileNotFoundError):
        list(STORE.list_files(str(tmp_path / "nowhere")))


def test_list_files__version_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("1")
    (before,) = STORE.list_files(str(tmp_path))
    path.write_text("22")
    (after,) = STORE.list_files(str(tmp_path))
    assert before.version != after.version


@pytest.mark.parametrize("name", ["plain.jpg", "a b.jpg", "a#b.jpg", "a%20b.jpg", "ünï/ço dé.jpg", "?.jpg"])
def test_local_uri__is_the_plain_path(name: str) -> None:
    assert storage.local_uri(f"/data/{name}") == f"/data/{name}"
    assert storage.local_path(f"/data/{name}") == f"/data/{name}"


def test_local_uri__round_trips_names_that_are_no_utf8() -> None:
    path = os.fsdecode(b"/data/caf\xe9 #%.jpg")
    assert storage.local_uri(path) == "file:///data/caf%E9%20%23%25.jpg"
    assert storage.local_path(storage.local_uri(path)) == path


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:secret@host:8080/a/b.pt?sig=abc#x", "https://host:8080/a/b.pt"),
        ("git+https://user:secret@host/x", "git+https://host/x"),
        ("https://user:[secret@host/x", "https://…"),
        ("s3://key:secret@bucket/a%20b", "s3://bucket/a%20b"),
        ("s3a://bucket/a?b#c d", "s3://bucket/a?b#c d"),
        ("s3://bucket/a?X-Amz-Signature=abc", "s3://bucket/a"),
        ("/local/a?b#c", "/local/a?b#c"),
    ],
)
def test_redact__drops_user_info_and_query(uri: str, shown: str) -> None:
    assert storage.redact(uri) == shown


def test_absolute__refuses_credentials() -> None:
    assert storage.absolute("s3://bucket/a/") == "s3://bucket/a"
    assert storage.absolute("gcs://bucket/a") == "gs://bucket/a"
    for uri in ("s3://key:secret@bucket/a", "https://host/a?sig=1", "s3://bucket/a?X-Amz-Signature=abc"):
        with pytest.raises(ConfigError, match="without credentials") as caught:
            storage.absolute(uri)
        assert not any(secret in str(caught.value) for secret in ("secret", "sig=", "abc"))


@pytest.mark.parametrize(
    "options",
    [
        *({"secret": "x"}, {"key": "x"}, {"client_kwargs": {"aws_session_token": "x"}}, {"password": "x"}),
        *({"client_kwargs": {"headers": {"Authorization": "Bearer x"}}}, {"client_kwargs": {"auth": "x"}}),
        *({"cookies": {"a": "x"}}, {"proxies": [{"passwd": "x"}]}, {"proxies": [[{"password": "x"}]]}),
    ],
)
def test_store_for__refuses_secrets_among_the_options(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="would carry a credential"):
        storage.store_for("s3://bucket", options)


def test_store_for__takes_options_that_only_look_like_secrets() -> None:
    for uri, options in (("gs://bucket", {"token": "anon"}), ("s3://bucket", {"requester_pays": True, "anon": True})):
        storage.store_for(uri, options)
    with pytest.raises(ConfigError, match="in its address"):
        storage.store_for("s3://bucket", {"endpoint_url": "http://user:hidden@host"})


def test_store_for__refuses_schemes_that_are_not_allowed() -> None:
    for uri in ("ftp://host/x", "memory://x", "https://host/x"):
        with pytest.raises(ConfigError, match="Expected a local path, s3://"):
            storage.store_for(uri)


def test_replace_if__only_the_version_that_was_seen(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    STORE.replace(uri, b"old")
    seen = STORE.info(uri)
    assert seen is not None
    assert STORE.replace_if(uri, b"newer", seen.version)
    assert not STORE.replace_if(uri, b"zombie", seen.version)
    assert Path(uri).read_bytes() == b"newer"
    Path(uri).unlink()
    assert not STORE.replace_if(uri, b"zombie", seen.version)
    assert not Path(uri).exists()


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(OSError(5, "flaky"), ATTEMPTS), (OSError(28, "disk full"), 1), (PermissionError(13, "denied"), 1)],
)
def test_retried__only_what_may_pass_and_not_for_ever(
    error: OSError, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, waits = [], []
    monkeypatch.setattr("time.sleep", waits.append)

    @retried
    def read() -> None:
        calls.append(1)
        raise error

    with pytest.raises(OSError, match=error.strerror):
        read()
    assert len(calls) == attempts
    assert len(waits) == attempts - 1
    assert all(0 <= wait <= 30 for wait in waits)


def test_scrub__redacts_uris_inside_a_text() -> None:
    text = "404, url='https://u:p(w)d@host/a?sig=1' (see s3://k:s@b/c and git+https://u:p@h/x?y)"
    assert storage.scrub(text) == "404, url='https://host/a (see s3://b/c and git+https://h/x"


def test_local_path__refuses_what_is_not_local() -> None:
    with pytest.raises(ConfigError, match="s3://bucket/x"):
        storage.local_path("s3://user:secret@bucket/x")


def test_open_stream__refuses_unknown_schemes() -> None:
    with pytest.raises(ConfigError, match="'ftp'"):
        storage.open_stream("ftp://host/x")


def test_read_bytes__no_more_than_asked_for_and_no_memory_for_what_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert [STORE.read_bytes(str(file), most) for most in (None, 3, 4, 5, 6)] == [
        b"12345",
        b"1234",  # one more, by which the reader sees that it is too long
        b"12345",
        b"12345",
        b"12345",
    ]
    tracemalloc.start()
    try:
        STORE.read_bytes(str(file), 2**28)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_read_bytes__what_has_no_end_or_no_size_is_read_up_to_the_limit() -> None:
    assert STORE.read_bytes("/dev/zero", 1000) == bytes(1001)
    assert b"VmHWM" in STORE.read_bytes("/proc/self/status", 100_000)  # says that it has 0 bytes


@pytest.mark.parametrize(
    "uri", ["/", "/a", "/a/", "//a", "/a//b", "/a/./b", "/a/../b", "/a..b/c.d", "/.hidden/a", "/~/a", "/a/.", "/a ü#?%"]
)
def test_local_path__of_an_absolute_path_is_its_one_spelling(uri: str) -> None:
    assert storage.local_path(uri) == os.path.abspath(uri)
