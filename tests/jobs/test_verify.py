"""The verify job: tables that jobs.embed and jobs.predict have written, whole and broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import embed, predict, train, verify
from pipeline.errors import ConfigError
from pipeline.table import embeddings, encode
from pipeline.verify import VerifyOptions
from tests import samples
from tests.forms import FORMS
from tests.jobs.test_jobs import content, run, run_embed
from tests.s3 import S3Server

pytestmark = pytest.mark.usefixtures("ray_cluster")

Capture = pytest.CaptureFixture[str]


def run_verify(capsys: Capture, table: object, *arguments: object) -> tuple[int, dict[str, Any]]:
    return run(capsys, verify, "--table", table, *arguments)


def forget_manifests(table: Path) -> None:
    for file in table.glob("manifests/*.json"):
        file.unlink()


def test_verify__a_table_and_some_of_its_rows(image_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    table = tmp_path / "table"
    samples.write(image_folder / "train" / "flower" / "bad.jpg", b"no image")
    run_embed(capsys, image_folder, table, "--unit-size", 5)
    before = content(table)
    code, record = run_verify(capsys, table, "--sample", 5, "--seed", 3)
    assert (code, record["status"], record["num_breaches"]) == (0, "done", 0), record["stderr"]
    assert record["ledger"] == {"planned": 13, "embedded": 12, "rejected": 1, "pending": 0, "reused": 0}
    assert (record["files"], record["plans"], record["without_manifest"]) == (6, 1, [])
    sample = record["sample"]
    assert (sample["rows"], sample["compared"], sample["seed"], sample["changed"], sample["missing"]) == (5, 5, 3, 0, 0)
    assert sample["worst_cosine"] > 0.9999
    assert str(image_folder) in sample["worst_uri"]
    assert content(table) == before
    for line in (
        "Verified 6 files",
        "Ledger: 13 planned = 12 embedded + 1 rejected.",
        "Sample of 5 rows (seed 3): 5 compared",
    ):
        assert line in record["stderr"]


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("form", sorted(FORMS))
def test_verify__rows_of_every_form_of_source(form: str, image_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    source = FORMS[form](image_folder, tmp_path)
    table = tmp_path / "table"
    code, record = run(capsys, embed, "--source", source, "--table", table, "--backbone", "pixels", "--unit-size", 5)
    assert code == 0, record["stderr"]
    code, record = run_verify(capsys, table, "--sample", 100)
    assert (code, record["sample"]["compared"]) == (0, 12), record["stderr"]
    assert record["sample"]["worst_cosine"] > 0.9999


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_verify__swapped_embeddings_are_found_by_the_sample(
    dtype: str, image_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    table = tmp_path / "table"
    run_embed(capsys, image_folder, table, "--dtype", dtype)
    forget_manifests(table)
    (file,) = table.glob("data/*.parquet")
    rows = pq.read_table(file)
    vectors = embeddings(rows["embedding"])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    one, other = np.unravel_index(np.argmin(vectors @ vectors.T), (len(rows), len(rows)))
    order = list(range(len(rows)))
    order[one], order[other] = order[other], order[one]
    place = rows.schema.get_field_index("embedding")
    swapped = rows.set_column(place, rows.schema.field(place), rows["embedding"].take(pa.array(order)))
    file.write_bytes(encode(swapped, json.loads(rows.schema.metadata[b"vep"])))
    code, record = run_verify(capsys, table)
    assert (code, record["without_manifest"]) == (0, [file.name[:19]])
    code, record = run_verify(capsys, table, "--sample", 12)
    assert (code, record["status"], record["breaches_by_check"]) == (4, "breach", {"sample": 2})
    assert {breach["where"] for breach in record["breaches"]} == {str(file)}
    uris = rows["uri"].to_pylist()
    for uri in (uris[one], uris[other]):
        assert f"Expected a cosine similarity of at least 0.99 to what {uri} gives now" in record["stderr"]
    assert f"--seed {record['sample']['seed']} chooses the same rows" in record["stderr"]
    assert run_verify(capsys, table, "--sample", 12, "--min-cosine", -1)[0] == 0


def test_verify__what_became_of_the_images_since_is_told_and_no_breach(
    image_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    table = tmp_path / "table"
    run_embed(capsys, image_folder, table)
    paths = sorted(image_folder.rglob("*.jpg"))
    samples.write(paths[0], samples.jpeg(999))
    paths[1].unlink()
    code, record = run_verify(capsys, table, "--sample", 100)
    sample = record["sample"]
    assert (code, sample["compared"], sample["changed"], sample["missing"]) == (0, 10, 1, 1), record["stderr"]
    image_folder.rename(image_folder.with_name("elsewhere"))
    code, record = run_verify(capsys, table, "--sample", 100)
    assert (code, record["status"], record["sample"]["unreadable"]) == (1, "pending", 12)
    assert "12 images of the sample can't be read now" in record["stderr"]


def test_verify__pending_images_exit_1_and_a_missing_row_4(image_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    table = tmp_path / "table"
    run_embed(capsys, image_folder, table, "--unit-size", 5)
    forget_manifests(table)
    first, second, _ = sorted(table.glob("data/*.parquet"))
    kept = second.read_bytes()
    second.unlink()
    code, record = run_verify(capsys, table)
    assert (code, record["status"], record["ledger"]["pending"]) == (1, "pending", 5)
    assert "5 of 12 images are pending: run jobs.embed again." in record["stderr"]
    second.write_bytes(kept)
    rows = pq.read_table(first)
    first.write_bytes(encode(rows.slice(1), json.loads(rows.schema.metadata[b"vep"])))
    code, record = run_verify(capsys, table)
    assert (code, record["breaches"][0]["check"], record["breaches"][0]["where"]) == (4, "ledger", str(first))
    assert f"ledger: {first}: 1 images that this committed unit is to hold" in record["stderr"]


def test_verify__a_table_that_changed_was_pruned_and_reused(
    image_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    table = tmp_path / "table"
    run_embed(capsys, image_folder, table, "--unit-size", 5)
    paths = sorted(image_folder.rglob("*.jpg"))
    samples.write(paths[0], samples.jpeg(999))
    samples.write(paths[1], paths[2].read_bytes())
    paths[3].unlink()
    assert run_embed(capsys, image_folder, table, "--prune")[0] == 0
    code, record = run_verify(capsys, table, "--sample", 100)
    assert (code, record["ledger"]["planned"], record["sample"]["compared"]) == (0, 11, 11), record["stderr"]
    assert record["without_manifest"] == []


def test_verify__predictions(image_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    table, head = tmp_path / "table", tmp_path / "head"
    run_embed(capsys, image_folder, table, "--unit-size", 5)
    assert run(capsys, train, "--table", table, "--head", head)[0] == 0
    for name, given in (("by-table", ("--table", table)), ("by-source", ("--source", image_folder))):
        output = tmp_path / name
        assert run(capsys, predict, "--head", head, *given, "--output", output)[0] == 0
        code, record = run_verify(capsys, output)
        assert (code, record["kind"], record["ledger"]["embedded"]) == (0, "predictions", 12), record["stderr"]
        code, record = run_verify(capsys, output, "--sample", 1)
        assert (code, "leave --sample out" in record["error"]) == (2, True)


def test_verify__clean_removes_what_lies_about_and_says_so(image_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    table = tmp_path / "table"
    run_embed(capsys, image_folder, table)
    left = samples.write(table / "data" / ".x.parquet.0123456789ab.tmp", b"half")
    code, record = run_verify(capsys, table)
    assert (code, record["temporary_files"]) == (0, [str(left)])
    assert "1 files are not the table's" in record["stderr"]
    code, record = run_verify(capsys, table, "--clean")
    assert (code, record["removed"], list(record["kept"])) == (0, [], [str(left)])
    code, record = run_verify(capsys, table, "--clean", "--grace-s", 0)
    assert (code, record["removed"], left.exists()) == (0, [str(left)], False)
    assert f"Removed 1 files: {left}" in record["stderr"]


def test_verify__usage(image_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    table = tmp_path / "table"
    code, record = run_verify(capsys, table)
    assert (code, "found no table.json there" in record["error"]) == (2, True)
    run_embed(capsys, image_folder, table)
    code, record = run_verify(capsys, table, "--sample", 3, "--weights", "random:0")
    assert (code, "has no weights" in record["error"]) == (2, True)
    (plan,) = table.glob("plans/*.parquet")
    rows = pq.read_table(plan)
    told = {name: value for name, value in json.loads(rows.schema.metadata[b"vep"]).items() if name != "opened_with"}
    pq.write_table(rows.replace_schema_metadata({b"vep": json.dumps(told)}), plan)
    assert run_verify(capsys, table)[0] == 0
    code, record = run_verify(capsys, table, "--sample", 3)
    assert (code, "was made by a version that didn't note how its source is opened" in record["error"]) == (2, True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": 3, "min_cosine": 0.5}, "--seed, --min-cosine can be used with --sample only"),
        ({"grace_s": 3}, "--grace-s can be used with --clean only"),
        ({"sample": 0}, "--sample"),
    ],
)
def test_options__belong_together(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VerifyOptions(table="t", **given)


@pytest.mark.s3
def test_verify__in_a_bucket(s3_server: S3Server, tmp_path: Path, capsys: Capture, image_folder: Path) -> None:
    bucket, options = s3_server.make_bucket("verified-job"), json.dumps(s3_server.options)
    s3_server.upload(image_folder, f"{bucket}/photos")
    shared = ("--table-storage-options", options)
    given = (f"{bucket}/photos", f"{bucket}/table", "--storage-options", options, *shared, "--unit-size", 5)
    code, record = run_embed(capsys, *given)  # type: ignore[arg-type]
    assert code == 0, record["stderr"]
    code, record = run_verify(capsys, f"{bucket}/table", *shared, "--sample", 12)
    assert (code, record["ledger"]["embedded"], record["sample"]["compared"]) == (0, 12, 12), record["stderr"]
    client, name = s3_server.client(), bucket.removeprefix("s3://")
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=name, Prefix="table/data/")["Contents"]]
    client.delete_object(Bucket=name, Key=keys[1].replace("data/", "rejects/"))
    code, record = run_verify(capsys, f"{bucket}/table", *shared)
    assert (code, record["breaches_by_check"]) == (4, {"ledger": 1, "manifests": 1})
