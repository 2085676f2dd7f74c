"""jobs.embed on every kind of source."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import samples
from tests.forms import FORMS, images_of
from tests.jobs.test_jobs import content, rows, run_embed
from tests.s3 import S3Server

pytestmark = pytest.mark.usefixtures("ray_cluster")


def by_content(table: Path) -> dict[str, tuple[Any, ...]]:
    """Return what must not depend on the form of the source, by the images' SHA-256."""
    names = ("sha256", "label", "split", "width", "height", "embedding")
    found = rows(table).select(names).to_pylist()
    assert len({row["sha256"] for row in found}) == len(found)
    return {row["sha256"]: tuple(row[name] for name in names) for row in found}


def test_embed__the_same_images_in_every_form_give_the_same_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, place = samples.write_folder(tmp_path / "images", per_class=10), tmp_path / "forms"
    place.mkdir()
    run_embed(capsys, folder, tmp_path / "folder-table", "--unit-size", 16)
    expected = by_content(tmp_path / "folder-table")
    assert len(expected) == 40
    for name, write in FORMS.items():
        table = tmp_path / f"{name}-table"
        code, record = run_embed(capsys, Path(write(folder, place)), table, "--unit-size", 16)
        assert code == 0, (name, record["stderr"])
        assert record["ledger"] == {"planned": 40, "embedded": 40, "rejected": 0, "pending": 0, "reused": 0}, name
        assert by_content(table) == expected, name
    extras = {name: rows(tmp_path / f"{name}-table").schema.names[7:] for name in FORMS}
    assert extras == {
        "csv": ["price"],
        "manifest": ["product_id", "tags"],
        "webdataset": ["json"],
        "parquet": ["image_path"],
        "huggingface": ["image_path"],
    }
    assert rows(tmp_path / "manifest-table").schema.field("product_id").type == pa.uint64()

    # Another form of the same images costs no embedding, and shows as images of its own.
    table = tmp_path / "manifest-table"
    source = place / "{test,train}-{000..001}.tar"
    code, record = run_embed(capsys, source, table, "--unit-size", 16)
    assert (code, record["new"]) == (0, {"embedded": 40, "reused": 40, "rejected": 0}), record["stderr"]
    found = pq.read_table(table / "data", schema=unified(table))
    assert found.num_rows == 80
    assert found["product_id"].null_count == found["json"].null_count == 40


def unified(table: Path) -> pa.Schema:
    return pa.unify_schemas([pq.read_schema(path).remove_metadata() for path in (table / "data").iterdir()])


def test_embed__a_hostile_tar_gives_exact_rows_and_rejects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar_path = tmp_path / "shard.tar"
    with tarfile.open(tar_path, "w") as tar:
        for name, data in (
            ("b.cls", b"B"),
            ("a.jpg", samples.jpeg(1)),
            ("../evil.jpg", samples.jpeg(2)),
            ("/etc/evil.jpg", samples.jpeg(3)),
            ("a.jpg", samples.jpeg(4)),
            ("b.png", samples.encode(samples.crop(5), "PNG")),
            ("c.jpg", b"no image"),
            ("a.cls", b"A"),
            ("lonely.cls", b"L"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, kind in (("soft.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.jpg"
            tar.addfile(member)
    code, record = run_embed(capsys, tar_path, tmp_path / "table", "--max-reject-fraction", 1)
    assert code == 0, record["stderr"]
    prefix = f"{tar_path}#"
    found = {row["uri"].removeprefix(prefix): row["label"] for row in rows(tmp_path / "table").to_pylist()}
    assert found == {"a.jpg": "A", "b.png": "B"}
    rejects = pq.read_table(tmp_path / "table" / "rejects").to_pylist()
    assert {row["uri"].removeprefix(prefix): row["code"] for row in rejects} == {
        "../evil.jpg": "unsafe",
        "/etc/evil.jpg": "unsafe",
        "a.jpg#2": "duplicate",
        "c.jpg": "unsupported",
        "lonely": "missing",
        "soft.jpg": "unsafe",
        "hard.jpg": "unsafe",
    }
    assert record["ledger"] == {"planned": 9, "embedded": 2, "rejected": 7, "pending": 0, "reused": 0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard.tar", "table"]


def test_embed__a_manifest_with_every_kind_of_trouble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples.write(tmp_path / "here.jpg", samples.jpeg(1))
    (tmp_path / "m.csv").write_text(
        "uri,label\nhere.jpg,007\nmissing.jpg,a\nhttp://127.0.0.1:1/x.jpg,a\nhere.jpg,b\n"
        "https://user:hidden@host/a.jpg,c\ns3://bucket/y.jpg?X-Amz-Signature=hidden,d\n"
    )
    arguments = (tmp_path / "m.csv", tmp_path / "table", "--max-reject-fraction", 1)
    code, record = run_embed(capsys, *arguments)
    assert code == 0, record["stderr"]
    assert rows(tmp_path / "table").select(["uri", "label"]).to_pylist() == [
        {"uri": str(tmp_path / "here.jpg"), "label": "007"}
    ]
    assert record["rejects_by_code"] == {"duplicate": 1, "missing": 1, "refused": 3}
    assert not any(b"hidden" in data for data in content(tmp_path / "table").values())
    assert "hidden" not in json.dumps(record)
    code, record = run_embed(capsys, tmp_path / "m.csv", tmp_path / "other", "--label-from", "column:klass")
    assert code == 2
    assert "klass" in record["error"]
    assert "['uri', 'label']" in record["error"]
    assert not (tmp_path / "other").exists()


def test_embed__a_manifest_in_a_bucket_with_entries_of_several_stores(
    s3_server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket, options = s3_server.make_bucket("manifests"), json.dumps(s3_server.options)
    samples.write(tmp_path / "up" / "photos" / "a.jpg", samples.jpeg(1))
    samples.write(tmp_path / "here.jpg", samples.jpeg(2))
    entries = ["photos/a.jpg", f"{bucket}/photos/gone.jpg", str(tmp_path / "here.jpg")]
    samples.write(tmp_path / "up" / "m.jsonl", "".join(json.dumps({"uri": uri}) + "\n" for uri in entries).encode())
    s3_server.upload(tmp_path / "up", f"{bucket}/set")
    source, table = f"{bucket}/set/m.jsonl", tmp_path / "table"
    code, record = run_embed(capsys, source, table, "--storage-options", options, "--max-reject-fraction", 1)
    assert code == 0, record["stderr"]
    assert set(rows(table)["uri"].to_pylist()) == {f"{bucket}/set/photos/a.jpg", str(tmp_path / "here.jpg")}
    assert record["rejects_by_code"] == {"missing": 1}


def test_embed__a_changed_shard_is_replaced_whole_and_only_the_difference_embedded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, place = samples.write_folder(tmp_path / "images", per_class=3), tmp_path / "forms"
    place.mkdir()
    source, table = FORMS["webdataset"](folder, place), tmp_path / "table"
    run_embed(capsys, Path(source), table)
    before = {row["uri"]: row["sha256"] for row in rows(table).to_pylist()}
    samples.write(Path(images_of(folder)[0]["path"]), samples.jpeg(9001))  # the first image of test-000.tar
    FORMS["webdataset"](folder, place)
    code, record = run_embed(capsys, Path(source), table)
    assert code == 0, record["stderr"]
    assert record["new"]["embedded"] - record["new"]["reused"] == 1
    after = {row["uri"]: row["sha256"] for row in rows(table).to_pylist()}
    assert [uri for uri in before if before[uri] != after[uri]] == [f"{place}/test-000.tar#0000.jpg"]
    assert set(after) == set(before)
    for manifest in (table / "manifests").glob("*.json"):
        for file in json.loads(manifest.read_text())["files"]:
            assert pq.read_metadata(table / file["path"]).num_rows == file["rows"]


def test_embed__changed_and_removed_images_and_prune(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table"
    run_embed(capsys, image_folder, table, "--unit-size", 5)
    paths = sorted(image_folder.rglob("*.jpg"))
    samples.write(paths[0], samples.jpeg(9001))
    paths[1].rename(paths[1].with_name("renamed.jpg"))
    paths[2].unlink()
    code, record = run_embed(capsys, image_folder, table)
    assert (code, record["source"]["changed"], record["source"]["new"], record["source"]["removed"]) == (0, 1, 1, 2)
    assert record["new"] == {"embedded": 2, "reused": 1, "rejected": 0}
    assert "2 image(s) of this source are gone" in record["stderr"]
    assert len(rows(table)) == 13
    code, record = run_embed(capsys, image_folder, table, "--prune")
    assert (code, record["source"]["pruned"], record["new"]["embedded"]) == (0, 2, 0)
    assert rows(table)["uri"].to_pylist() == sorted(map(str, image_folder.rglob("*.jpg")))
    before = content(table)
    code, record = run_embed(capsys, image_folder, table, "--prune")
    assert (code, record["source"]["removed"], content(table)) == (0, 0, before)


def test_embed__options_that_mean_nothing_for_a_format_are_errors(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (("--uri-column", "x"), ("--image-column", "x"), ("--allow-http",), ("--root", "x")):
        code, record = run_embed(capsys, image_folder, tmp_path / "table", *options)
        assert (code, f"{options[0]} can't be used with a source of the format folder" in record["error"]) == (2, True)
