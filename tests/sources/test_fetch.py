"""Reading many small files: in order, by threads where there is something to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from pipeline.errors import TransientError
from pipeline.sources.base import Fetched
from pipeline.sources.fetch import fetch_in_order

URIS = [f"{i}" for i in range(100)]


class Files:
    """Files that take some time each, by a clock of their own."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.seconds, self.now = seconds, 0.0
        self.here, self.elsewhere = list[int](), list[int]()

    def fetch(self, uri: str) -> Fetched:
        here = threading.current_thread() is threading.main_thread()
        (self.here if here else self.elsewhere).append(int(uri))
        if here:
            self.now += self.seconds(int(uri))
        return Fetched(uri, uri.encode())

    def read(self, concurrent: int = 8) -> Iterator[Fetched]:
        return fetch_in_order(URIS, self.fetch, concurrent, lambda: self.now)


@pytest.mark.parametrize(
    ("seconds", "one_by_one"),
    [
        (lambda _: 0.0001, 100),
        (lambda i: 0.03 if i % 5 == 3 else 0.0001, 100),  # a process that has to wait for its processor at times
        (lambda _: 0.02, 2),  # a store
        (lambda _: 0.002, 9),  # a network mount
        (lambda i: 0.002 if i >= 50 else 0.0001, 55),
    ],
)
def test_fetch_in_order__threads_only_where_there_is_something_to_wait_for(
    seconds: Callable[[int], float], one_by_one: int
) -> None:
    files = Files(seconds)
    assert [fetched.uri for fetched in files.read()] == URIS
    assert files.here == list(range(one_by_one))
    assert sorted(files.elsewhere) == list(range(one_by_one, 100))


def test_fetch_in_order__one_at_once_is_one_by_one() -> None:
    files = Files(lambda _: 0.1)
    assert [fetched.uri for fetched in files.read(concurrent=1)] == URIS
    assert not files.elsewhere


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_fetch_in_order__an_error_comes_at_its_turn(seconds: float) -> None:
    files, seen = Files(lambda _: seconds), list[str]()

    def fetch(uri: str) -> Fetched:
        if uri == "42":
            raise TransientError("not now")
        return files.fetch(uri)

    with pytest.raises(TransientError, match="not now"):
        seen.extend(fetched.uri for fetched in fetch_in_order(URIS, fetch, 8, lambda: files.now))
    reading = fetch_in_order(URIS, fetch, 8, lambda: files.now)
    assert [next(reading).uri for _ in range(42)] == URIS[:42]
    with pytest.raises(TransientError, match="not now"):
        next(reading)
