"""Files by names, folders and patterns: which, in what order, what is missing; and splits by names."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.sources.patterns import CONCURRENT_LOOK_UPS, FilePattern, split_by_name
from pipeline.storage import FileInfo, LocalStore
from tests import samples

NAMES = ("s-000.tar", "s-001.tar", "s-002.TAR", "s-010.tgz", "x/s-001.tar", "odd.name", "s-00x", "odd[1]{2}.tar")


def pattern_of(pattern: str, store: LocalStore | None = None) -> FilePattern:
    return FilePattern(pattern, store or LocalStore(), (".tar", ".tgz"), "tars")


def uris(pattern: str) -> list[str]:
    return [info.uri for info in pattern_of(pattern).found(Counter())]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("s-000.tar", ["s-000.tar"]),
        ("odd.name", ["odd.name"]),
        ("s-{000..001}.tar", ["s-000.tar", "s-001.tar"]),
        ("s-{001,000,000}.tar", ["s-000.tar", "s-001.tar"]),
        ("s-*", ["s-000.tar", "s-001.tar", "s-002.TAR", "s-010.tgz"]),
        ("{s-00*,s-000}.tar", ["s-000.tar", "s-001.tar"]),
        ("**/s-00[12].tar", ["s-001.tar", "x/s-001.tar"]),
        ("{x,s-000.tar}", ["s-000.tar", "x/s-001.tar"]),
        ("odd[1]{2}.tar", ["odd[1]{2}.tar"]),
        ("odd[[]1]*", ["odd[1]{2}.tar"]),
        (".", ["odd[1]{2}.tar", "s-000.tar", "s-001.tar", "s-002.TAR", "s-010.tgz", "x/s-001.tar"]),
    ],
)
def test_found__in_order_and_each_once(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    for name in NAMES:
        samples.write(tmp_path / name, b"")
    assert [os.path.relpath(uri, tmp_path) for uri in uris(f"{tmp_path}/{pattern}")] == expected


@pytest.mark.parametrize("name", ["a[1]", "a{b", "a{1,2}", "a*"])
def test_found__what_is_there_by_that_very_name_comes_first(tmp_path: Path, name: str) -> None:
    for other in ("a1", "a2", "a{b,c}", "ab"):
        samples.write(tmp_path / other / "0.tar", b"")
    file = str(samples.write(tmp_path / name / "1.tar", b""))
    assert uris(f"{tmp_path}/{name}") == [file]
    file = str(samples.write(tmp_path / "deep" / name, b""))
    assert uris(file) == [file]


def test_found__counts_what_is_passed_over(tmp_path: Path) -> None:
    for name in ("a.tar", "b.json", "c/d.json", "README"):
        samples.write(tmp_path / name, b"")
    skipped: Counter[str] = Counter()
    assert len(list(pattern_of(str(tmp_path)).found(skipped))) == 1
    assert skipped == {".json": 2, "(no suffix)": 1}


@pytest.mark.parametrize("pattern", ["", "nowhere", "nowhere.tar", "*.tar", "n*", "{0..0}.tar"])
def test_found__nothing_is_an_error(tmp_path: Path, pattern: str) -> None:
    samples.write(tmp_path / "notes.txt", b"text")
    with pytest.raises(ConfigError, match=r"^Expected tars at .*, found none\. Check --source\.$"):
        uris(f"{tmp_path}/{pattern}")


def test_found__all_places_that_are_missing_are_told(tmp_path: Path) -> None:
    for number in (*range(10), 12):
        samples.write(tmp_path / f"{number:03d}.tar", b"")
    samples.write(tmp_path / "empty" / "notes.txt", b"")
    pattern = f"{tmp_path}/{{000..019}}.tar"
    with pytest.raises(ConfigError) as caught:
        uris(pattern)
    first = ", ".join(f"{tmp_path}/{number:03d}.tar" for number in (10, 11, 13, 14, 15))
    assert str(caught.value) == (
        f"Expected tars at all 20 places that {pattern} names, found none at 9 of them: {first} and 4 more. "
        "Correct the pattern, or bring them there."
    )
    with pytest.raises(ConfigError, match=r"all 2 places .* none at 1 of them: .*/empty\. Correct"):
        uris(f"{tmp_path}/{{000.tar,empty}}")


@pytest.mark.parametrize("pattern", ["{000..099.tar", "{a,{b}.tar"])
def test_file_pattern__refuses_wrong_braces(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"Expected braces as in shard-\{000\.\.099\}\.tar, got /x/"):
        pattern_of(f"/x/{pattern}")


class SlowStore(LocalStore):
    """Local files, the first of which are looked up together or not at all, and the others slowly."""

    def __init__(self) -> None:
        self.num_asked, self._lock = 0, threading.Lock()
        self._all_there = threading.Barrier(CONCURRENT_LOOK_UPS)

    def info(self, uri: str) -> FileInfo | None:
        if "{" in uri:
            return None
        with self._lock:
            self.num_asked += 1
            is_first = self.num_asked <= CONCURRENT_LOOK_UPS
        if is_first:
            self._all_there.wait(timeout=30)
        else:
            time.sleep(0.05)
        return super().info(uri)


def test_found__looks_up_many_places_at_once_but_none_for_nobody(tmp_path: Path) -> None:
    num_places = 40 * CONCURRENT_LOOK_UPS
    for number in range(num_places):
        samples.write(tmp_path / f"{number:03d}.tar", b"")
    store = SlowStore()
    files = pattern_of(f"{tmp_path}/{{000..{num_places - 1}}}.tar", store).found(Counter())
    assert [next(files).uri for _ in range(2)] == [f"{tmp_path}/000.tar", f"{tmp_path}/001.tar"]
    files.close()  # type: ignore[attr-defined]
    assert store.num_asked <= num_places / 2


def test_file_pattern__names_that_are_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    uri = f"file://{tmp_path}/caf%E9/0.tar"
    samples.write(folder / "0.tar", b"")
    for pattern in (folder, folder / "*", folder / "0.tar", folder / "{0..0}.tar", uri):
        assert uris(str(pattern)) == [uri]
    assert pattern_of(str(folder)).uri == f"file://{tmp_path}/caf%E9"


def test_file_pattern__travels(tmp_path: Path) -> None:
    samples.write(tmp_path / "0.tar", b"")
    pattern = pickle.loads(pickle.dumps(pattern_of(f"{tmp_path}/*")))
    assert [info.uri for info in pattern.found(Counter())] == [f"{tmp_path}/0.tar"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-000.tar", "train"),
        ("train-00000-of-00010.parquet", "train"),
        ("TRAIN_000.tar", "train"),
        ("val.tar", "validation"),
        ("Validation_3.parquet", "validation"),
        ("dev2.tar.gz", "validation"),
        ("test0.parquet", "test"),
        ("imagenet/val/000.tar", "validation"),
        ("Testing/000.tar", "test"),
        ("train/test-0.parquet", "test"),
        ("trainer-000.tar", None),
        ("devices.parquet", None),
        ("imagenet-train-000.tar", None),
        ("test-of-mine/000.tar", None),
        ("val/more/000.tar", None),
    ],
)
def test_split_by_name(name: str, split: str | None) -> None:
    for root in ("", "/x/", "s3://train/x/"):
        assert split_by_name(root + name) == split
