"""Entries of a manifest: where they lead, which can never be images, and which name an image again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.errors import RejectCode
from pipeline.sources.manifest import ManifestSource
from tests.sources.manifests import columns_of, images, listed, verdicts, version, write


@pytest.mark.parametrize(
    ("entry", "uri"),
    [
        ("a.jpg", "/lists/a.jpg"),
        ("../x/./a b.jpg", "/x/a b.jpg"),
        ("/abs/../a.jpg", "/a.jpg"),
        ("a\\b:c?d#e%20.jpg", "/lists/a\\b:c?d#e%20.jpg"),
        ("file:///d/a%20b.jpg", "/d/a b.jpg"),
        ("FILE://localhost/d/a.jpg", "/d/a.jpg"),
        ("file:///d/%ff.jpg", "file:///d/%FF.jpg"),
        ("s3://b/k?v=1#2 3/../x", "s3://b/k?v=1#2 3/../x"),
        (" s3a://b/k/ ", "s3://b/k"),
        ("gcs://b/k@2x.png", "gs://b/k@2x.png"),
        ("abfs://c/k", "az://c/k"),
        ("HTTPS://Example.com/a/", "https://Example.com/a/"),
    ],
)
def test_refs__where_an_entry_leads(tmp_path: Path, entry: str, uri: str) -> None:
    root = tmp_path / "lists"
    root.mkdir()
    path = write(tmp_path, "list.jsonl", json.dumps({"key": entry, "version": "1"}))
    expected = uri.replace("/lists", str(root)) if uri.startswith("/lists") else uri
    expected = str(tmp_path / "x/a b.jpg") if uri == "/x/a b.jpg" else expected
    assert verdicts(ManifestSource(path, root=str(root), allow_http=True)) == [(expected, "1")]


@pytest.mark.parametrize(
    ("entry", "uri", "code"),
    [
        ("a.jpg", "s3://bucket/lists/deep/a.jpg", ""),
        ("./a//b.jpg", "s3://bucket/lists/deep/a/b.jpg", ""),
        ("../a.jpg", "s3://bucket/lists/a.jpg", ""),
        ("../../a.jpg", "s3://bucket/a.jpg", ""),
        ("../../../other/a.jpg", "s3://bucket/lists/deep/../../../other/a.jpg", "unsafe"),
        ("../../../../a.jpg", "s3://bucket/lists/deep/../../../../a.jpg", "unsafe"),
        ("/local/a.jpg", "/local/a.jpg", "missing"),
    ],
)
def test_refs__relative_to_a_bucket(tmp_path: Path, entry: str, uri: str, code: str) -> None:
    path = write(tmp_path, "list.csv", f"uri\n{entry}\n")
    assert verdicts(ManifestSource(path, root="s3://bucket/lists/deep/")) == [(uri, code)]


def test_refs__rows_that_can_never_be_images(tmp_path: Path, image: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    entries = [
        None,
        "",
        " ",
        "http://example.com/a.jpg",
        "ftp://example.com/a.jpg",
        "data:image/png;base64,geheim",
        "https:/example.com/geheim.jpg",
        "file://host/a.jpg",
        "s3://bucket",
        "s3:///key",
        "s3://bucket/" + "k" * 1025,
        "x" * 300,
        "nul\0.jpg",
        ".",
        "pipe.jpg",
        "a.jpg",
    ]
    path = write(tmp_path, "list.jsonl", "\n".join(json.dumps({"uri": entry}) for entry in entries))
    assert verdicts(ManifestSource(path)) == [
        (f"{path}#row-1", "missing"),
        (f"{path}#row-2", "missing"),
        (f"{path}#row-3", "missing"),
        ("http://example.com/a.jpg", "refused"),
        ("ftp://example.com/a.jpg", "refused"),
        ("data:…#row-6", "refused"),
        ("https:…#row-7", "refused"),
        ("file:…#row-8", "refused"),
        ("s3://bucket", "missing"),
        ("s3:///key", "missing"),
        ("s3://bucket/" + "k" * 1025, "missing"),
        (str(tmp_path / ("x" * 300)), "missing"),
        (f"{path}#row-13", "missing"),
        (str(tmp_path), "missing"),
        (str(tmp_path / "pipe.jpg"), "missing"),
        (str(image), version(image)),
    ]
    codes = {"missing": RejectCode.MISSING, "refused": RejectCode.REFUSED}
    assert images(ManifestSource(path)) == [
        *((uri, codes[code]) for uri, code in verdicts(ManifestSource(path))[:-1]),
        (str(image), b"bytes of a"),
    ]


def test_refs__duplicates(tmp_path: Path) -> None:
    entries = ["a.jpg", "b.jpg", "./a.jpg", *(f"s3://b/{i}" for i in range(20_000)), "x/../b.jpg", "s3a://b/7/"]
    path = write(tmp_path, "list.csv", "uri,label\n" + "".join(f"{entry},{i}\n" for i, entry in enumerate(entries)))
    table = listed(ManifestSource(path))
    assert len(set(table["uri"].to_pylist())) == len(entries)
    found = [row for row in columns_of(table, "uri", "version", "label") if row[1].startswith("reject")]
    assert found == [
        (f"{tmp_path}/a.jpg#row-3", "reject:duplicate:Row 1 of the manifest names the same image.", "2"),
        (f"{tmp_path}/b.jpg#row-20004", "reject:duplicate:Row 2 of the manifest names the same image.", "20003"),
        ("s3://b/7#row-20005", "reject:duplicate:Row 11 of the manifest names the same image.", "20004"),
    ]


def test_refs__a_version_of_the_manifest_is_no_verdict(tmp_path: Path) -> None:
    path = write(tmp_path, "list.csv", "uri,etag\ns3://b/a,reject:missing:no\ns3://b/b,007\ns3://b/c,\n")
    assert listed(ManifestSource(path))["version"].to_pylist() == ["version reject:missing:no", "007", ""]
