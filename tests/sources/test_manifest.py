"""The manifest source: which columns are what, labels and splits, and options that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.sources.manifest import ManifestSource
from tests.sources.manifests import columns_of, listed, write


@pytest.mark.parametrize(
    ("label_from", "split_from", "label", "split"),
    [
        ("auto", "auto", "L", "validation"),
        ("none", "none", None, None),
        ("column:other", "column:set", "O", "train"),
        ("parent", "depth:1", "cat", "train"),
        ("depth:2", "regex:^([a-z]+)/", "cat", "train"),
        ("regex:([0-9]+)", "parent", "12", "cat"),
    ],
)
def test_refs__labels_and_splits(
    tmp_path: Path, label_from: str, split_from: str, label: str | None, split: str | None
) -> None:
    path = write(tmp_path, "list.csv", "uri,label,split,other,set\ntraining/cat/12.jpg,L,val,O,TRAIN\n")
    source = ManifestSource(path, label_from=label_from, split_from=split_from)
    assert columns_of(listed(source), "label", "split") == [(label, split)]
    taken = {"auto": {"label", "split"}, "column:other": {"other", "set"}}.get(label_from, set())
    rest = [name for name in ("label", "split", "other", "set") if name not in taken]
    assert source.columns().names == [f"source_{name}" if name in ("label", "split") else name for name in rest]


def test_refs__label_by_the_path_of_an_object(tmp_path: Path) -> None:
    path = write(tmp_path, "list.csv", 'uri\ns3://bucket/cat/a.jpg\n""\n/dog/a.jpg\ns3://user:geheim@b/c/a.jpg\n')
    assert listed(ManifestSource(path, label_from="depth:1"))["label"].to_pylist() == ["cat", None, "dog", None]


def test_columns__chosen_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "list.csv", ",uri,a,b,label\n0,x.jpg,1,2,cat\n")
    for columns, names in (("all", ["a", "b"]), ("none", []), ("b", ["b"]), ("b, a,b,label", ["b", "a"])):
        source = ManifestSource(path, columns=columns)
        assert source.columns().names == names
        assert listed(source)["label"].to_pylist() == ["cat"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"uri_column": "uris"}, r"--uri-column: .*list.csv has no column 'uris'; its columns are \['uri', 'label'\]"),
        ({"label_from": "column:class"}, r"--label-from: .*no column 'class'; its columns are \['uri', 'label'\]"),
        ({"split_from": "column:set"}, r"--split-from: .*no column 'set'; its columns are \['uri', 'label'\]"),
        ({"columns": "label,width"}, r"--columns: .*no column 'width'; its columns are \['uri', 'label'\]"),
        ({"root": "/no/such/folder"}, "Expected a folder at /no/such/folder, found none"),
    ],
)
def test_columns__unknown_ones(tmp_path: Path, options: dict[str, Any], error: str) -> None:
    source = ManifestSource(write(tmp_path, "list.csv", "uri,label\na.jpg,cat\n"), **options)
    with pytest.raises(ConfigError, match=error):
        source.columns()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"label_from": "folder"}, "--label-from: expected auto, column:NAME, parent"),
        ({"split_from": "column:"}, "--split-from: expected auto, column:NAME, parent"),
        ({"split_from": "depth:x"}, "--split-from: expected"),
        ({"root": "http://example.com"}, "--allow-http"),
        ({"root": "ftp://example.com"}, "Expected a local path, s3://"),
        ({"storage_options": {"secret": "x"}}, "would carry a credential"),
    ],
)
def test_manifest_source__wrong_options(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        ManifestSource("list.csv", **options)
