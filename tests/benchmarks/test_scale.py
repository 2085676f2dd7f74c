"""The simulation of many accelerators: its stand-ins give the right rows through the real graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.scale import Point, simulate
from benchmarks.stand_ins import uri_of, vector_of
from pipeline.table import embeddings
from tests.oracle import check


def test_simulate__each_image_has_one_row_with_its_own_vector(ray_cluster: None, tmp_path: Path) -> None:
    marks: dict[str, float] = {}
    record = simulate(Point(actors=1, unit_s=0.2, units=3, images=4), tmp_path, marks)
    assert (record["status"], record["ledger"]["embedded"]) == ("done", 12)
    assert record["stage_s"]["embed"] >= 3 * 0.2
    assert marks["planned"] > 0
    uris = [uri_of(number) for number in range(12)]
    assert check(str(tmp_path / "table"), uris).rejects == {}
    rows = pq.read_table(tmp_path / "table" / "data").sort_by("uri")
    np.testing.assert_array_equal(embeddings(rows["embedding"]), [vector_of(number) for number in range(12)])
