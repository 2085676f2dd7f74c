"""The fields beside an image: labels, splits and columns, and rules that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import ConfigError
from pipeline.sources.webdataset import WebDatasetSource
from tests.sources.tars import A, pack, read

META = {"label": 3, "a": {"b": "deep", "c": None}, "a.b": "flat", "yes": True, "half": "\ud800", "list": [1], "no": ""}


@pytest.mark.parametrize(
    ("rule", "label"),
    [
        ("auto", "7"),
        ("cls", "7"),
        ("txt", "a text"),
        ("json:label", "3"),
        ("json:a.b", "flat"),
        ("json:a.c", None),
        ("json:a", '{"b": "deep", "c": null}'),
        ("json:yes", "true"),
        ("json:half", "?"),
        ("json:list", "[1]"),
        ("json:no", None),
        ("json:label.x", None),
        ("none", None),
        ("parent", "cat"),
        ("depth:1", "train"),
        ("depth:4", None),
        ("regex:_([0-9]+)", "01"),
    ],
)
def test_rows__labels(tmp_path: Path, rule: str, label: str | None) -> None:
    members = [("img.txt", b" a text "), ("img.json", json.dumps(META).encode()), ("img.cls", b"7\n")]
    members = [(f"train/cat/{name.replace('img', 'img_01')}", data) for name, data in [*members, ("img.jpg", A)]]
    _, rows = read(pack(tmp_path / "0.tar", *members), label_from=rule)
    expected = {"uri": "#train/cat/img_01.jpg", "label": label, "split": None, "json": json.dumps(META)}
    if rule not in ("auto", "cls"):
        expected["cls"] = "7\n"
    if rule != "txt":
        expected["txt"] = " a text "
    assert rows == [expected]


@pytest.mark.parametrize(
    ("rule", "split"), [("none", None), ("depth:1", "validation"), ("regex:(c)at", "c"), ("json:s", "test")]
)
def test_rows__splits(tmp_path: Path, rule: str, split: str | None) -> None:
    uri = pack(tmp_path / "train-0.tar", ("val/cat.jpg", A), ("val/cat.json", b'{"s": "Testing"}'))
    assert [row["split"] for row in read(uri, split_from=rule)[1]] == [split]


@pytest.mark.parametrize(
    ("shard", "split"),
    [
        ("train-000.tar", "train"),
        ("imagenet/val/000.tar", "validation"),
        ("trainer-000.tar", None),
    ],
)
def test_rows__split_by_the_shards_name(tmp_path: Path, shard: str, split: str | None) -> None:
    _, rows = read(pack(tmp_path / shard, ("train/a.jpg", A)))
    assert rows == [{"uri": "#train/a.jpg", "label": None, "split": split}]


def test_columns__types_by_the_fields_names(tmp_path: Path) -> None:
    fields = ("cls", "json", "txt", "en.txt", "seg.png", "npy", "label", "__key__", "x.__url__")
    pack(tmp_path / "0.tar", *((f"a.{field}", b"{}") for field in fields), ("a.jpg", A), ("b.md", b"no image"))
    expected = {
        "__key__": pa.string(),
        "en.txt": pa.string(),
        "json": pa.string(),
        "npy": pa.binary(),
        "seg.png": pa.binary(),
        "source_label": pa.binary(),
        "txt": pa.string(),
        "x.__url__": pa.string(),
    }
    uri = str(tmp_path / "0.tar")
    assert {field.name: field.type for field in WebDatasetSource(uri).columns()} == expected
    assert WebDatasetSource(uri, columns="none").columns() == pa.schema([])
    assert WebDatasetSource(uri, columns="cls, txt").columns() == pa.schema(
        [("cls", pa.string()), ("txt", pa.string())]
    )
    assert set(read(uri)[1][0]) == {"uri", "label", "split", *expected}
    assert read(uri, columns="Label")[1][0] == {"uri": "#a.jpg", "label": "{}", "split": None, "source_label": b"{}"}


def test_columns__names_that_two_fields_share(tmp_path: Path) -> None:
    uri = pack(tmp_path / "0.tar", ("a.jpg", A), ("a.label", b""), ("a.source_label", b""))
    with pytest.raises(ConfigError, match="Fields 'label' and 'source_label' would share the column 'source_label'"):
        WebDatasetSource(uri).columns()


@pytest.mark.parametrize("option", [{"label_from": "column:x"}, {"label_from": "cls:x"}, {"label_from": "json:"}])
def test_webdataset_source__refuses_unknown_rules(option: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="Option --label-from: expected auto, cls, txt, json:FIELD, parent, depth:N"):
        WebDatasetSource("/x", **option)


def test_webdataset_source__refuses_other_options() -> None:
    with pytest.raises(ConfigError, match="Option --split-from: expected auto, json:FIELD, depth:N"):
        WebDatasetSource("/x", split_from="cls")
    with pytest.raises(ConfigError, match="Expected braces as in"):
        WebDatasetSource("/x/{000..099.tar")
