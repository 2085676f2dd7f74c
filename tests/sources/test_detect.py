"""Which source an URI is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.sources import FolderSource
from pipeline.sources.detect import detect, open_source
from pipeline.sources.options import SourceOptions
from tests import samples


@pytest.mark.parametrize(
    ("files", "source", "expected"),
    [
        (["a/1.jpg"], "", "folder"),
        (["1.jpg", "x.tar", "m.parquet"], "", "folder"),
        (["README.md", "a/x.tar"], "", "folder"),
        (["x-000.tar", "x-000.json", "x-000.parquet"], "", "webdataset"),
        (["x.tgz"], "", "webdataset"),
        (["README.md", "data/train-0.parquet"], "", "parquet"),
        (["a.parquet", "_SUCCESS"], "", "parquet"),
        (["dataset_info.json", "state.json", "data-0.arrow"], "", "huggingface"),
        (["dataset_dict.json", "train/state.json"], "", "huggingface"),
        ([], "images.CSV", "manifest"),
        ([], "images.tsv", "manifest"),
        ([], "images.jsonl", "manifest"),
        ([], "shard-{000..009}.tar", "webdataset"),
        ([], "*.tar.gz", "webdataset"),
        ([], "part-*.parquet", "parquet"),
    ],
)
def test_detect__by_names(tmp_path: Path, files: list[str], source: str, expected: str) -> None:
    for name in files:
        samples.write(tmp_path / name, b"")
    assert detect(str(tmp_path / source), storage.LocalStore()) == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([b"x"]), "parquet"),
        (pa.array([b"x"], pa.large_binary()), "parquet"),
        (pa.array([{"bytes": b"x", "path": None}]), "parquet"),
        (pa.array(["a.jpg"]), "manifest"),
    ],
)
def test_detect__a_parquet_file_by_its_columns(tmp_path: Path, column: pa.Array, expected: str) -> None:
    pq.write_table(pa.table({"image": column, "label": ["x"]}), tmp_path / "a.parquet")
    assert detect(str(tmp_path / "a.parquet"), storage.LocalStore()) == expected


def test_detect__says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found nothing there"):
        detect(str(tmp_path / "no.parquet"), storage.LocalStore())
    samples.write(tmp_path / "bad.parquet", b"no parquet at all")
    with pytest.raises(ConfigError, match="can't be read"):
        detect(str(tmp_path / "bad.parquet"), storage.LocalStore())


def test_open_source__the_format_can_be_named(tmp_path: Path) -> None:
    samples.write(tmp_path / "x.tar", b"")
    assert isinstance(open_source(SourceOptions(source=str(tmp_path), format="folder")), FolderSource)


def test_open_source__refuses_credentials_in_the_uri() -> None:
    with pytest.raises(ConfigError, match="without credentials") as caught:
        open_source(SourceOptions(source="s3://key:hidden@bucket/photos"))
    assert "hidden" not in str(caught.value)
