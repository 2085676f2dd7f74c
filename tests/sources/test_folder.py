"""The folder source: labels, splits, any file name, and what is passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, ImageReject, RejectCode, TransientError
from pipeline.sources import FolderSource
from tests import samples


def listed(root: Path) -> dict[str, tuple[str | None, str | None]]:
    return {os.path.relpath(ref.uri, root): (ref.label, ref.split) for ref in FolderSource(str(root)).refs()}


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
    assert [os.path.basename(ref.uri) for ref in source.refs()] == ["d.tiff", "e.heic", "empty-without-suffix", "f.svg"]
    assert source.skipped == {".txt": 2, ".json": 1, "(no suffix)": 1, ".unheard": 1}


def test_refs__names_that_are_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    samples.write(folder / "a.jpg", samples.jpeg(0))
    source = FolderSource(str(tmp_path))
    (ref,) = source.refs()
    assert ref.label == "caf�"
    assert source.read(ref.uri, 10**6) == samples.jpeg(0)


def test_folder_source__says_what_is_there_instead(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found nothing there"):
        FolderSource(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="found a file there"):
        FolderSource(str(samples.write(tmp_path / "file", b"")))


def test_read__a_vanished_image_is_a_reject_but_a_vanished_folder_is_not(tmp_path: Path) -> None:
    path = samples.write(tmp_path / "root" / "a.jpg", b"x")
    source = FolderSource(str(tmp_path / "root"))
    path.unlink()
    with pytest.raises(ImageReject) as caught:
        source.read(str(path), 10)
    assert caught.value.code is RejectCode.MISSING
    (tmp_path / "root").rmdir()
    with pytest.raises(TransientError, match="is gone"):
        source.read(str(path), 10)
