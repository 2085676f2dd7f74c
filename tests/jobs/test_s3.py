"""The jobs with source, table, head and predictions in a bucket, worker processes included."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import evaluate, predict, train
from pipeline.storage import Store, store_for
from pipeline.table import embeddings
from tests import samples
from tests.jobs.test_jobs import rows, run, run_embed
from tests.s3 import S3Server

pytestmark = [pytest.mark.s3, pytest.mark.usefixtures("ray_cluster")]


def table_rows(store: Store, table: str, folder: str = "data") -> pa.Table:
    parts = [pq.read_table(io.BytesIO(store.read_bytes(info.uri))) for info in store.list_files(f"{table}/{folder}")]
    return pa.concat_tables(parts).sort_by("uri")


def check_manifests(store: Store, table: str) -> list[dict[str, Any]]:
    """Check that what the manifests name is there as they say."""
    import hashlib

    manifests = [json.loads(store.read_bytes(info.uri)) for info in store.list_files(f"{table}/manifests")]
    for manifest in manifests:
        assert len(manifest["files"]) == 2 * manifest["num_units"]
        for file in manifest["files"]:
            data = store.read_bytes(f"{table}/{file['path']}")
            assert hashlib.sha256(data).hexdigest() == file["sha256"]
            assert pq.read_metadata(io.BytesIO(data)).num_rows == file["rows"]
    return manifests


def test_the_whole_job_in_a_bucket(s3_server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bucket, options = s3_server.make_bucket("whole-job"), json.dumps(s3_server.options)
    store = store_for(bucket, s3_server.options)
    folder = samples.write_folder(tmp_path / "images", per_class=10)
    samples.write(folder / "train" / "flower" / "a #?%20+ü.jpg", samples.jpeg(5001))
    samples.write(folder / "train" / "flower" / "bad.jpg", b"no image")
    s3_server.upload(folder, f"{bucket}/photos")
    source, table = f"{bucket}/photos", f"{bucket}/table"
    remote = ("--storage-options", options, "--table-storage-options", options)
    code, record = run_embed(capsys, source, table, *remote, "--unit-size", 16)
    assert code == 0, record["stderr"]
    assert record["ledger"] == {"planned": 42, "embedded": 41, "rejected": 1, "pending": 0, "reused": 0}
    run_embed(capsys, folder, tmp_path / "table", "--unit-size", 16)
    here, there = rows(tmp_path / "table"), table_rows(store, table)
    here_uris = [f"{source}/{Path(uri).relative_to(folder)}" for uri in here["uri"].to_pylist()]
    order = np.argsort(here_uris)
    assert there["uri"].to_pylist() == sorted(here_uris)
    for name in ("sha256", "label", "split", "width", "height", "embedding"):
        assert there[name].to_pylist() == here[name].take(pa.array(order)).to_pylist()
    assert table_rows(store, table, "rejects")["uri"].to_pylist() == [f"{source}/train/flower/bad.jpg"]
    check_manifests(store, table)

    before = {info.uri: info.version for info in store.list_files(table)}
    code, record = run_embed(capsys, source, table, *remote)
    assert (code, record["new"]["embedded"], record["source"]["new"]) == (0, 0, 0)
    assert {info.uri: info.version for info in store.list_files(table)} == before

    store.replace(f"{source}/test/palace/new.jpg", samples.jpeg(5002))
    store.replace(f"{source}/train/flower/000.jpg", samples.jpeg(5003))
    store.replace(f"{source}/train/flower/bad.jpg", samples.jpeg(5004))
    code, record = run_embed(capsys, source, table, *remote)
    assert (code, record["source"]["new"], record["source"]["changed"]) == (0, 1, 2), record["stderr"]
    assert record["new"] == {"embedded": 3, "reused": 0, "rejected": 0}
    found = table_rows(store, table)
    assert len(found) == len(set(found["uri"].to_pylist())) == 43
    assert len(table_rows(store, table, "rejects")) == 0
    assert len(check_manifests(store, table)) == 2

    head, shared = f"{bucket}/head", ("--table-storage-options", options)
    code, trained = run(capsys, train, "--table", table, "--head", head, *shared)
    assert code == 0, trained["stderr"]
    code, measured = run(capsys, evaluate, "--table", table, "--head", head, *shared)
    assert (code, measured["metrics"]) == (0, trained["metrics"]["test"])
    code, _ = run(capsys, predict, "--table", table, "--head", head, "--output", f"{bucket}/by-table", *shared)
    assert code == 0
    by_source = ("--source", source, "--head", head, "--output", f"{bucket}/by-source", *remote)
    code, record = run(capsys, predict, *by_source, "--reuse", table)
    assert (code, record["new"]["reused"]) == (0, 43), record["stderr"]
    one, other = (table_rows(store, f"{bucket}/{name}") for name in ("by-table", "by-source"))
    for name in ("uri", "sha256", "label", "split", "predicted_label"):
        assert one[name].to_pylist() == other[name].to_pylist()
    np.testing.assert_allclose(one["probability"].to_numpy(), other["probability"].to_numpy(), atol=1e-5)
    assert embeddings(found["embedding"]).shape == (43, 192)


def test_embed__a_bucket_that_is_not_there_and_a_prefix_without_images(
    s3_server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket, options = s3_server.make_bucket("hardly-anything"), json.dumps(s3_server.options)
    for source, message in (
        ("s3://no-such-bucket/photos", "found nothing there"),
        (f"{bucket}/photos", "found nothing there"),
    ):
        code, record = run_embed(capsys, source, tmp_path / "table", "--storage-options", options)
        assert code == 2, record
        assert message in record["error"]
    for option in ("--storage-options", "--table-storage-options"):
        code, record = run_embed(capsys, tmp_path, f"{bucket}/t", option, '{"secret": "x"}')
        assert (code, "would carry a credential" in record["error"]) == (2, True)
    assert not (tmp_path / "table").exists()
