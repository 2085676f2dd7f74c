"""The jobs in this process, on one Ray cluster, with the small baseline backbone."""

from __future__ import annotations

import contextlib
import io
import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import embed, evaluate, predict, train
from pipeline.backbones import load_backbone
from pipeline.engines.openvino import import_openvino
from pipeline.images import decode
from pipeline.table import embeddings
from tests import samples
from tests.engines.test_parity import REDUCED, network_one_by_one, page_normalise, page_pixels, worst_cosine
from tests.servers import running

pytestmark = pytest.mark.usefixtures("ray_cluster")


def run(capsys: pytest.CaptureFixture[str], job: Any, *arguments: object) -> tuple[int, dict[str, Any]]:
    code = job.main([*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    record = next(line for line in out.splitlines() if line.startswith("{"))  # Ray may print in this very process, too
    return code, {**json.loads(record), "stderr": err}


def run_embed(
    capsys: pytest.CaptureFixture[str], source: Path, table: Path, *arguments: object
) -> tuple[int, dict[str, Any]]:
    return run(capsys, embed, "--source", source, "--table", table, "--backbone", "pixels", *arguments)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(table: Path) -> pa.Table:
    return pq.read_table(table / "data").sort_by("uri")


def test_embed__writes_the_table_of_the_format(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table"
    code, record = run_embed(capsys, image_folder, table, "--unit-size", 5)
    assert code == 0
    assert record["ledger"] == {"planned": 12, "embedded": 12, "rejected": 0, "pending": 0, "reused": 0}
    assert record["new"] == {"embedded": 12, "reused": 0, "rejected": 0}
    assert sorted(path.name for path in table.iterdir()) == ["data", "manifests", "plans", "rejects", "table.json"]
    (plan,) = (path.stem for path in table.glob("manifests/*.json"))
    names = [f"{plan}-00000{i}.parquet" for i in range(3)]
    assert sorted(path.name for path in (table / "data").iterdir()) == names
    assert sorted(path.name for path in (table / "rejects").iterdir()) == names
    found = rows(table)
    assert found.schema.names == ["uri", "sha256", "label", "split", "width", "height", "embedding"]
    assert found.schema.field("embedding").type == pa.list_(pa.float32(), 192)
    assert found["uri"].to_pylist() == sorted(str(path) for path in image_folder.rglob("*.jpg"))
    assert set(zip(found["label"].to_pylist(), found["split"].to_pylist(), strict=True)) == {
        (label, split) for label in ("flower", "palace") for split in ("train", "test")
    }
    manifest = json.loads((table / "manifests" / f"{plan}.json").read_text())
    assert manifest["ledger"] == record["ledger"]
    assert manifest["completed_by"]["engines"] == record["engines"]


@pytest.mark.parametrize(("unit_size", "batch_size", "dtype"), [(5, 2, "float32"), (1024, 16, "float16")])
def test_embed__vectors_are_those_of_the_backbone(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], unit_size: int, batch_size: int, dtype: str
) -> None:
    options = ("--unit-size", unit_size, "--batch-size", batch_size, "--dtype", dtype, "--engine", "torch")
    run_embed(capsys, image_folder, tmp_path / "table", *options)
    found = rows(tmp_path / "table")
    preset = load_backbone("pixels").preprocessing
    for uri, vector in zip(found["uri"].to_pylist(), embeddings(found["embedding"]), strict=True):
        pixels = preset.pixels(decode(Path(uri).read_bytes()))
        expected = pixels.reshape(8, 4, 8, 4, 3).mean((1, 3)).transpose(2, 0, 1).reshape(-1) / 255
        np.testing.assert_allclose(vector, expected, atol=1e-6 if dtype == "float32" else 1e-3)


def test_embed__again_does_nothing_and_new_images_only_are_added(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table"
    run_embed(capsys, image_folder, table)
    before = content(table)
    code, record = run_embed(capsys, image_folder, table)
    assert (code, record["new"], content(table)) == (0, {"embedded": 0, "reused": 0, "rejected": 0}, before)
    samples.write(image_folder / "train" / "flower" / "another.jpg", samples.jpeg(77))
    code, record = run_embed(capsys, image_folder, table)
    assert (code, record["new"]) == (0, {"embedded": 1, "reused": 0, "rejected": 0})
    assert record["ledger"]["planned"] == 13
    after = content(table)
    assert {name: after[name] for name in before} == before
    assert len(set(rows(table)["uri"].to_pylist())) == 13
    assert len(list((table / "manifests").glob("*.json"))) == 2


def test_embed__an_interrupted_run_is_finished_without_redoing_its_units(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table"
    run_embed(capsys, image_folder, table, "--unit-size", 5)
    whole = rows(table)
    (lost,) = (table / "data").glob("*-000001.parquet")
    lost.unlink()
    kept = content(table / "data")
    next((table / "manifests").glob("*.json")).unlink()
    code, record = run_embed(capsys, image_folder, table, "--unit-size", 3)
    assert (code, record["new"]["embedded"]) == (0, 5)
    assert {name: data for name, data in content(table / "data").items() if name in kept} == kept
    assert rows(table).equals(whole)


@pytest.mark.parametrize(
    "arguments", [("--backbone", "microsoftvision-resnet50", "--weights", "random:0"), ("--dtype", "float16")]
)
def test_embed__refuses_other_features_and_touches_nothing(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    table = tmp_path / "table"
    run_embed(capsys, image_folder, table)
    before = content(table)
    code, record = run_embed(capsys, image_folder, table, *arguments)
    assert code == 2
    assert str(table) in record["error"]
    assert content(table) == before


def test_embed__bad_images_become_rejects_with_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, table = samples.write_folder(tmp_path / "images", per_class=10), tmp_path / "table"
    for name, (data, _) in samples.bad_images().items():
        samples.write(source / "train" / "flower" / name, data)
    code, record = run_embed(capsys, source, table, "--unit-size", 8, "--max-reject-fraction", 0.4)
    bad = samples.bad_images()
    assert code == 0
    assert record["ledger"] == {
        "planned": 40 + len(bad),
        "embedded": 40,
        "rejected": len(bad),
        "pending": 0,
        "reused": 0,
    }
    rejects = pq.read_table(table / "rejects").to_pylist()
    assert {Path(row["uri"]).name: row["code"] for row in rejects} == {name: code for name, (_, code) in bad.items()}
    assert all(row["sha256"] and row["message"] and row["stage"] == "decode" for row in rejects)
    assert len(rows(table)) == 40
    code, record = run_embed(capsys, source, table, "--max-reject-fraction", 0.2)
    assert (code, record["status"], record["new"]["rejected"]) == (3, "too_many_rejects", 0)


def test_embed__any_file_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [
        "a b.jpg",
        "a#b.jpg",
        "a%20b.jpg",
        "a?b=c&d.jpg",
        "ünï çø.jpg",
        "日本語.JPG",
        "quote'\".jpg",
        "new\nline.jpg",
        "[x]*.jpg",
    ]
    for i, name in enumerate(names):
        samples.write(tmp_path / "images" / "c l a s s" / name, samples.jpeg(i))
    code, _ = run_embed(capsys, tmp_path / "images", tmp_path / "table")
    assert code == 0
    found = rows(tmp_path / "table")["uri"].to_pylist()
    assert sorted(found) == sorted(str(tmp_path / "images" / "c l a s s" / name) for name in names)


def test_embed__limit_and_then_the_rest(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, first = run_embed(capsys, image_folder, tmp_path / "table", "--limit", 5)
    _, rest = run_embed(capsys, image_folder, tmp_path / "table")
    assert (first["new"]["embedded"], rest["new"]["embedded"]) == (5, 7)


def test_embed__an_image_that_can_not_be_read_now_stays_pending(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, image = tmp_path / "table", image_folder / "train" / "flower" / "unreadable.jpg"
    image.symlink_to("/proc/self/mem")  # reading it is an I/O error
    code, record = run_embed(capsys, image_folder, table, "--unit-size", 4)
    assert code == 1
    assert record["status"] == "pending"
    assert 0 < record["ledger"]["pending"] <= 4
    assert record["ledger"]["rejected"] == 0
    assert "unreadable.jpg can't be read now: [Errno 5]" in record["stderr"]
    image.unlink()
    image.write_bytes(samples.jpeg(6))
    code, record = run_embed(capsys, image_folder, table, "--unit-size", 4)
    assert (code, record["ledger"]["pending"], record["ledger"]["rejected"]) == (0, 0, 0)


def test_embed__says_what_is_wrong_with_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples.write(tmp_path / "images" / "notes.txt", b"")
    code, record = run_embed(capsys, tmp_path / "images", tmp_path / "table")
    assert code == 2
    assert "found none (1 files passed over, not images by their names: 1 .txt)" in record["error"]
    code, record = run(capsys, embed, "--source", "ftp://host/images", "--table", tmp_path / "table")
    assert (code, "Expected a local path, s3://, gs:// or az://" in record["error"]) == (2, True)
    assert not (tmp_path / "table").exists()


def test_embed__an_engine_that_can_not_start_is_one_clear_error(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, record = run_embed(capsys, image_folder, tmp_path / "table", "--engine", "openvino", "--device", "cuda")
    assert (code, "--engine torch" in record["error"]) == (2, True)
    capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    missing = [name for name, key in (("bf16", "BF16"), ("fp16", "FP16")) if key not in capabilities]
    if missing:
        code, record = run_embed(capsys, image_folder, tmp_path / "table", "--precision", missing[0], "--unit-size", 2)
        assert (code, "but this processor" in record["error"]) == (2, True)
        assert "Traceback" not in record["stderr"]


def test_the_whole_job__train_evaluate_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, table = samples.write_folder(tmp_path / "images", per_class=20), tmp_path / "table"
    assert run_embed(capsys, source, table, "--unit-size", 16)[0] == 0
    mlp = ("--hidden", "32,16", "--epochs", 20, "--learning-rate", 0.01)
    for kind, options in (("logistic", ()), ("mlp", mlp), ("knn", ("-k", 5)), ("ridge", ())):
        train_evaluate_predict(capsys, tmp_path / kind, source, table, kind, options)


def train_evaluate_predict(
    capsys: pytest.CaptureFixture[str], folder: Path, source: Path, table: Path, kind: str, options: tuple[object, ...]
) -> None:
    head = folder / "head"
    code, trained = run(capsys, train, "--table", table, "--head", head, "--kind", kind, *options)
    assert (code, trained["kind"]) == (0, kind)
    assert trained["classes"] == ["flower", "palace"]
    code, measured = run(capsys, evaluate, "--table", table, "--head", head)
    assert (code, measured["metrics"]) == (0, trained["metrics"]["test"])
    by_table, by_source = folder / "by-table", folder / "by-source"
    assert run(capsys, predict, "--head", head, "--table", table, "--output", by_table)[0] == 0
    code, record = run(capsys, predict, "--head", head, "--source", source, "--output", by_source)
    assert (code, record["ledger"]["embedded"]) == (0, 80)
    one, other = rows(by_table), rows(by_source)
    for name in ("uri", "sha256", "label", "split", "predicted_label", "top5_labels"):
        assert one[name].to_pylist() == other[name].to_pylist()
    np.testing.assert_allclose(one["probability"].to_numpy(), other["probability"].to_numpy(), atol=1e-5)
    tested = one.filter(pa.compute.equal(one["split"], "test"))
    right = sum(a == b for a, b in zip(tested["label"].to_pylist(), tested["predicted_label"].to_pylist(), strict=True))
    assert right / len(tested) == measured["metrics"]["top1"]

    before = content(by_table), content(by_source)
    assert run(capsys, predict, "--head", head, "--table", table, "--output", by_table)[1]["new"]["embedded"] == 0
    assert run(capsys, predict, "--head", head, "--source", source, "--output", by_source)[1]["new"]["embedded"] == 0
    code, record = run(capsys, predict, "--head", head, "--table", table, "--output", by_source)
    assert (code, "another input" in record["error"]) == (2, True)
    code, record = run(capsys, predict, "--head", head, "--source", source, "--output", by_table)
    assert (code, "another input" in record["error"]) == (2, True)
    assert (content(by_table), content(by_source)) == before


def test_predict__follows_a_table_whose_images_were_replaced_and_pruned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, table, head, output = (tmp_path / name for name in ("images", "table", "head", "output"))
    samples.write_folder(source, per_class=4)
    run_embed(capsys, source, table)
    assert run(capsys, train, "--table", table, "--head", head)[0] == 0
    arguments = ("--head", head, "--table", table, "--output", output)
    assert run(capsys, predict, *arguments)[0] == 0
    paths = sorted(source.rglob("*.jpg"))
    samples.write(paths[0], samples.jpeg(9001))
    paths[1].unlink()
    assert run_embed(capsys, source, table, "--prune")[0] == 0
    code, record = run(capsys, predict, *arguments)
    assert (code, record["new"]["embedded"], record["ledger"]["planned"]) == (0, 1, 15)
    for name in ("uri", "sha256"):
        assert rows(output)[name].to_pylist() == rows(table)[name].to_pylist()


def test_predict__embeds_with_the_heads_own_contract(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights and preset are those that the head's contract names; nothing else has to be given."""
    table, head, output = (tmp_path / name for name in ("table", "head", "output"))
    special = ("--weights", "random:3", "--preprocess", "fruits360-notebook")
    code, record = run(capsys, embed, "--source", image_folder, "--table", table, *special)
    assert (code, "RANDOM WEIGHTS (random:3)" in record["stderr"]) == (0, True)
    assert run(capsys, train, "--table", table, "--head", head)[0] == 0
    code, record = run(capsys, predict, "--head", head, "--source", image_folder, "--output", output)
    assert (code, record["contract"]["weights"]) == (0, "random:3")
    assert len(rows(output)) == 12
    wrong = ("--source", image_folder, "--output", tmp_path / "other", "--weights", "random:4")
    code, record = run(capsys, predict, "--head", head, *wrong)
    assert (code, "weights_sha256" in record["error"]) == (2, True)
    assert not (tmp_path / "other").exists()


def test_embed__the_rows_equal_the_reference_for_every_kind_of_image(
    calibrated_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parity through the whole job: weights by http into the cache, read, decode, embed, commit, in uneven units."""
    source, table, cache = tmp_path / "images", tmp_path / "table", tmp_path / "cache"
    for name, data in samples.odd_images().items():
        samples.write(source / name, data)
    handler = partial(SimpleHTTPRequestHandler, directory=str(calibrated_weights.parent))
    with running(QuietServer(("127.0.0.1", 0), handler)) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/{calibrated_weights.name}"
        options = ("--unit-size", 7, "--batch-size", 4, "--weights", url, "--cache-dir", cache)
        code, record = run(capsys, embed, "--source", source, "--table", table, *options)
    assert code == 0, record["stderr"]
    assert record["contract"]["weights"] == url
    assert len(list(cache.glob("weights/*.safetensors"))) == 1
    found = rows(table)
    paths = [Path(uri) for uri in found["uri"].to_pylist()]
    assert sorted(path.name for path in paths) == sorted(samples.odd_images())
    network = load_backbone("microsoftvision-resnet50", str(calibrated_weights)).network
    reference = network_one_by_one(network, [page_normalise(page_pixels(path)) for path in paths])
    assert worst_cosine(embeddings(found["embedding"]), reference) >= REDUCED


class QuietServer(ThreadingHTTPServer):
    """Serves files, and says nothing."""

    def finish_request(self, request: Any, client_address: Any) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            super().finish_request(request, client_address)


def test_embed__limits_are_options(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longest = max(path.stat().st_size for path in image_folder.rglob("*.jpg"))
    large = samples.encode(samples.crop(3, 200, 300), "JPEG", quality=100)
    assert len(large) > longest
    samples.write(image_folder / "train" / "flower" / "large.jpg", large)
    for name, value in (("--max-image-pixels", 96 * 128), ("--max-image-bytes", longest)):
        _, record = run_embed(capsys, image_folder, tmp_path / name, name, value)
        assert record["rejects_by_code"] == {"too_large": 1}
        assert record["ledger"]["embedded"] == 12


def test_jobs__refuse_a_file_where_a_folder_should_be(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = samples.write(tmp_path / "file", b"")
    for place in (file, file / "below"):
        code, record = run_embed(capsys, image_folder, place)
        assert (code, f"{file} is a file" in record["error"]) == (2, True)
        code, record = run(capsys, train, "--table", tmp_path, "--head", place)
        assert (code, f"{file} is a file" in record["error"]) == (2, True)
