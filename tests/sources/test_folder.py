"""The folder source: labels, splits, any file name, and what is passed over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, ImageReject, RejectCode, TransientError
from pipeline.sources import FolderSource
from tests import samples


def refs(source: FolderSource) -> list[dict[str, Any]]:
    return [row for table in source.refs(1024) for row in table.to_pylist()]


def listed(root: Path, **options: Any) -> dict[str, tuple[str | None, str | None]]:
    rows = refs(FolderSource(str(root), **options))
    return {os.path.relpath(row["uri"], root): (row["label"], row["split"]) for row in rows}


def read(source: FolderSource, max_bytes: int = 10**6) -> list[bytes | ImageReject]:
    (table,) = source.refs(1024)
    return [image.data for image in source.read(table, max_bytes).images()]


@pytest.mark.parametrize(
    ("path", "label", "split"),
    [
        ("a.jpg", None, None),
        ("cat/a.jpg", "cat", None),
        ("animals/cat/a.jpg", "cat", None),
        ("train/cat/a.jpg", "cat", "train"),
        ("Training/cat/a.jpg", "cat", "train"),
        ("VAL/cat/a.jpg", "cat", "validation"),
        ("valid/cat/a.jpg", "cat", "validation"),
        ("Validation/deep/er/cat/a.jpg", "cat", "validation"),
        ("testing/cat/a.jpg", "cat", "test"),
        ("test/a.jpg", None, "test"),
        ("cat/test/a.jpg", "test", None),
        ("train/a b#1%20/ünï?.JPG", "a b#1%20", "train"),
        ("cat/no-suffix", "cat", None),
        ("cat/img_v1.0", "cat", None),
        ("cat/a.jpg.1", "cat", None),
        ("cat/b.jpeg?width=300", "cat", None),
        ("cat/c.JPG ", "cat", None),
    ],
)
def test_refs__label_and_split(tmp_path: Path, path: str, label: str | None, split: str | None) -> None:
    samples.write(tmp_path / path, samples.jpeg(0))
    assert listed(tmp_path) == {path: (label, split)}


def test_refs__passes_over_and_counts_what_promises_no_image(tmp_path: Path) -> None:
    for name in ("a.txt", "b.TXT", "c.json", "LICENSE", ".hidden.jpg", "x.unheard"):
        samples.write(tmp_path / name, b"text")
    for name in ("d.tiff", "e.heic", "f.svg", "empty-without-suffix"):
        samples.write(tmp_path / name, b"")
    source = FolderSource(str(tmp_path))
    names = [os.path.basename(ref["uri"]) for ref in refs(source)]
    assert names == ["d.tiff", "e.heic", "empty-without-suffix", "f.svg"]
    assert source.skipped == {".txt": 2, ".json": 1, "(no suffix)": 1, ".unheard": 1}


def test_refs__names_that_are_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    samples.write(folder / "a.jpg", samples.jpeg(0))
    source = FolderSource(str(tmp_path))
    (ref,) = refs(source)
    assert ref["label"] == "caf�"
    assert read(source) == [samples.jpeg(0)]


def test_folder_source__says_what_is_there_instead(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found nothing there"):
        FolderSource(str(tmp_path / "nowhere")).columns()
    with pytest.raises(ConfigError, match="found a file there"):
        FolderSource(str(samples.write(tmp_path / "file", b""))).columns()


def test_read__a_vanished_image_is_a_reject_but_a_vanished_folder_is_not(tmp_path: Path) -> None:
    path = samples.write(tmp_path / "root" / "a.jpg", b"x")
    source = FolderSource(str(tmp_path / "root"))
    (table,) = source.refs(1024)
    path.unlink()
    with pytest.raises(TransientError, match="is gone"):  # an empty folder may be a mount point without its mount
        list(source.read(table, 10).images())
    samples.write(tmp_path / "root" / "other.txt", b"x")
    (image,) = source.read(table, 10).images()
    assert isinstance(image.data, ImageReject)
    assert image.data.code is RejectCode.MISSING
    (tmp_path / "root" / "other.txt").unlink()
    (tmp_path / "root").rmdir()
    with pytest.raises(TransientError, match="is gone"):
        list(source.read(table, 10).images())


@pytest.mark.parametrize("concurrent", [1, 3, 64])
def test_read__keeps_the_order_and_the_limit(tmp_path: Path, concurrent: int) -> None:
    for i in range(20):
        samples.write(tmp_path / f"{i:02d}.jpg", bytes([i]) * (i + 1))
    source = FolderSource(str(tmp_path), concurrent_reads=concurrent)
    assert read(source, 9) == [bytes([i]) * min(i + 1, 10) for i in range(20)]


@pytest.mark.parametrize(
    ("rule", "label"),
    [
        ("parent", "cat"),
        ("none", None),
        ("depth:1", "animals"),
        ("depth:2", "cat"),
        ("depth:3", None),
        ("depth:-2", "animals"),
        (r"regex:^([a-z]+)/", "animals"),
        (r"regex:([0-9]+)\.jpg$", "17"),
        (r"regex:(dog)", None),
    ],
)
def test_refs__label_from(tmp_path: Path, rule: str, label: str | None) -> None:
    samples.write(tmp_path / "animals/cat/img_17.jpg", b"")
    assert listed(tmp_path, label_from=rule) == {"animals/cat/img_17.jpg": (label, None)}


@pytest.mark.parametrize(
    ("rule", "split"), [("auto", None), ("none", None), ("depth:2", "validation"), ("regex:(holdout)", "holdout")]
)
def test_refs__split_from(tmp_path: Path, rule: str, split: str | None) -> None:
    samples.write(tmp_path / "holdout/val/cat/a.jpg", b"")
    assert listed(tmp_path, split_from=rule) == {"holdout/val/cat/a.jpg": ("cat", split)}


@pytest.mark.parametrize(
    "rule", ["", "parents", "depth:0", "depth:x", "regex:", "regex:(", "regex:nogroup", "none:1", "column:x"]
)
def test_folder_source__says_what_is_wrong_with_a_rule(tmp_path: Path, rule: str) -> None:
    with pytest.raises(ConfigError, match="Option --label-from"):
        FolderSource(str(tmp_path), label_from=rule)


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), ("*.png",), ["a/1.jpg", "a/b/2.jpg"]),
        (("*.png",), (), ["a/3.png"]),
        (("a/*",), (), ["a/1.jpg", "a/3.png"]),
        (("a/**",), ("**/b/*",), ["a/1.jpg", "a/3.png"]),
        (("**/2.*", "1.*"), (), ["a/1.jpg", "a/b/2.jpg"]),
    ],
)
def test_refs__include_and_exclude(
    tmp_path: Path, include: tuple[str, ...], exclude: tuple[str, ...], expected: list[str]
) -> None:
    for name in ("a/1.jpg", "a/b/2.jpg", "a/3.png"):
        samples.write(tmp_path / name, b"")
    assert sorted(listed(tmp_path, include=include, exclude=exclude)) == expected
    source = FolderSource(str(tmp_path), include=include, exclude=exclude)
    refs(source)
    assert source.skipped == {"left out by pattern": 3 - len(expected)}
