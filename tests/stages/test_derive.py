"""What is made of embeddings where they are computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.images import Limits
from pipeline.stages.commit import commit_block
from pipeline.stages.costs import costs_of
from pipeline.stages.derive import derive_unit
from pipeline.stages.embed import embed_unit, give_up
from pipeline.stages.read import read_unit
from pipeline.table import Table
from tests.stages.test_stages import PRESET, SCHEMA, Images, MeanColour, colour, plan

VECTOR = SCHEMA.field("embedding").type


def brightness(vectors: np.ndarray) -> pa.StructArray:
    assert vectors.dtype == np.float32
    return pa.StructArray.from_arrays([pa.array(vectors.mean(axis=1).tolist(), pa.float64())], names=["brightness"])


def finish(rows: pa.Table, plan: str) -> pa.Table:
    return rows.select(["uri", "sha256"]).append_column("brightness", rows["derived"].combine_chunks().field(0))


def embedded(table: Table, source: Images) -> pa.Table:
    block = read_unit(table, plan(table, source), source, PRESET, Limits())
    return embed_unit(MeanColour(), block, PRESET, VECTOR, lambda _: None)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path))


def test_derive_unit__takes_the_place_of_the_embeddings_and_leaves_rejects_out(table: Table) -> None:
    images = {"a": colour(10), "b": b"no image", "c": colour(200), "d": b"", "e": colour(77), "f": colour(10)}
    block = embedded(table, Images(images))
    asked = []
    derived = derive_unit(block, lambda vectors: asked.append(vectors) or brightness(vectors))  # type: ignore[func-returns-value]
    assert "embedding" not in derived.column_names
    assert [row and row["brightness"] for row in derived["derived"].to_pylist()] == [10, None, 200, None, 77, 10]
    np.testing.assert_array_equal(asked[0][:, 0], [10, 200, 77, 10])  # of rejects nothing is asked
    assert costs_of(derived).embed_s > costs_of(block).embed_s
    report = commit_block(derived, table, finish, {})
    assert (report.embedded, report.rejected, report.trouble) == (4, 2, None)
    rows = pq.read_table(Path(table.uri) / "data").to_pydict()
    assert (rows["uri"], rows["brightness"]) == (["a", "c", "e", "f"], [10, 200, 77, 10])
    assert pq.read_table(Path(table.uri) / "rejects")["code"].to_pylist() == ["unsupported", "empty"]


def test_derive_unit__extra_columns_do_not_get_in_its_way(table: Table) -> None:
    extras = pa.table({"derived": ["x", "y"], "brightness": [1, 2]})
    derived = derive_unit(embedded(table, Images({"a": colour(3), "b": colour(4)}, extras)), brightness)
    assert commit_block(derived, table, finish, {}).trouble is None
    assert pq.read_table(Path(table.uri) / "data")["brightness"].to_pylist() == [3, 4]


def test_derive_unit__of_rejects_only(table: Table) -> None:
    derived = derive_unit(embedded(table, Images({"a": b"", "b": b""})), brightness)
    report = commit_block(derived, table, finish, {})
    assert (report.embedded, report.rejected, report.trouble) == (0, 2, None)


def test_derive_unit__an_error_keeps_the_unit_pending(table: Table) -> None:
    def fail(vectors: np.ndarray) -> pa.StructArray:
        raise MemoryError("none left")

    report = commit_block(derive_unit(embedded(table, Images({"a": colour(3)})), fail), table, finish, {})
    assert "Nothing can be made of the embeddings: MemoryError: none left" in str(report.trouble)
    assert not Path(table.uri, "data").exists()


def test_derive_unit__of_a_unit_in_trouble_nothing_is_made(table: Table) -> None:
    source = Images({"a": colour(1)})
    block = read_unit(table, plan(table, source), source, PRESET, Limits())
    block = derive_unit(give_up(block, VECTOR, ConfigError("no such precision")), brightness)
    assert not {"embedding", "derived"} & set(block.column_names)
    report = commit_block(block, table, finish, {})
    assert (report.hopeless, "no such precision" in str(report.trouble)) == (True, True)
