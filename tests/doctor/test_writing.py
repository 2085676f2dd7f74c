"""Writing is measured where the table is or will be, and leaves nothing there."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.doctor.writing import WRITERS, embedding_rows, place_for, write_for
from pipeline.refs import REF_SCHEMA
from pipeline.storage import LocalStore
from pipeline.table import Table, data_schema, encode
from pipeline.table.audit import audit
from tests.table.tables import make

REFS = pa.Table.from_pylist(
    [{"uri": f"/images/{i}.jpg", "version": "1", "num_images": 1, "label": "a"} for i in range(3)], schema=REF_SCHEMA
)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_embedding_rows__are_those_of_the_format(dtype: str) -> None:
    schema = data_schema(dtype, 192)  # type: ignore[arg-type]
    rows = embedding_rows(REFS, 7, schema)
    assert (rows.schema, len(rows)) == (schema, 7)
    assert rows["uri"].to_pylist() == [f"/images/{i % 3}.jpg" for i in range(7)]
    assert len(set(rows["sha256"].to_pylist())) == 7
    assert pq.read_table(io.BytesIO(encode(rows, {}))).num_rows == 7


class Recorder(LocalStore):
    """Tells what is put."""

    def __init__(self) -> None:
        object.__setattr__(self, "put", [])

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        self.put.append((uri, len(data)))  # type: ignore[attr-defined]
        return super().put_if_absent(uri, data)


class NoRemoval(LocalStore):
    """Lets nobody remove anything."""

    def remove(self, uri: str) -> None:
        raise PermissionError(13, "denied", uri)


def test_write_for__puts_what_a_unit_has_and_takes_it_away(tmp_path: Path) -> None:
    store, rows = Recorder(), embedding_rows(REFS, 5, data_schema("float32", 192))
    written = write_for(Table(str(tmp_path), store), rows, 0.02)
    put = store.put  # type: ignore[attr-defined]
    assert all(Path(uri).parent == tmp_path and Path(uri).name.startswith(".probe-") for uri, _ in put)
    assert len({uri for uri, _ in put}) == len(put) >= 2 * WRITERS
    assert written.pace.images == 5 * len(put) // 2
    assert written.pace.num_bytes == sum(length for _, length in put)
    assert written.pace.images_per_s > 0
    assert (written.left, list(tmp_path.iterdir())) == ({}, [])


def test_write_for__names_what_may_not_be_removed_and_stops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = embedding_rows(REFS, 5, data_schema("float32", 192))
    table = make(tmp_path)
    written = write_for(Table(table.uri, NoRemoval()), rows, 60)
    assert sorted(written.left) == sorted(str(path) for path in tmp_path.glob(".probe-*"))
    checked = audit(table)  # for which they are temporary files, as killed writers leave them
    assert (set(checked.left.temporary), len(checked.findings)) == (set(written.left), 0)
    assert 2 <= len(written.left) <= 2 * WRITERS
    assert "can't be removed: " in caplog.text


def test_write_for__takes_away_what_was_put_before_a_failure(tmp_path: Path) -> None:
    class FullAfterOne(LocalStore):
        def put_if_absent(self, uri: str, data: bytes) -> bool:
            if "data" in uri:
                raise OSError(28, "disk full", uri)
            return super().put_if_absent(uri, data)

    with pytest.raises(OSError, match="disk full"):
        write_for(Table(str(tmp_path), FullAfterOne()), embedding_rows(REFS, 5, data_schema("float32", 192)), 60)
    assert list(tmp_path.iterdir()) == []


def test_place_for__beside_the_table_or_above_one_that_is_not_there(tmp_path: Path) -> None:
    with place_for(Table(str(tmp_path))) as place:
        assert place.uri == str(tmp_path)
    with place_for(Table(str(tmp_path / "not" / "yet"))) as place:
        assert place.uri == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with place_for(Table("s3://bucket/table")) as place:
        assert place.uri == "s3://bucket/table"


def test_place_for__a_temporary_folder_that_goes_away() -> None:
    with place_for(None) as place:
        assert os.path.isdir(place.uri)
    assert not os.path.exists(place.uri)
