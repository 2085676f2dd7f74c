"""jobs.doctor: measure, name the bottleneck, recommend, estimate, and leave nothing behind."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from jobs import doctor
from jobs.arguments import parse
from jobs.diagnosis import diagnosis_text
from pipeline.backbones import load_backbone
from pipeline.doctor import DoctorOptions
from pipeline.doctor.advice import command
from pipeline.doctor.machine import share
from pipeline.doctor.record import make_record
from pipeline.embed import EmbedOptions
from pipeline.layout import Layout
from pipeline.storage import store_for
from tests import samples
from tests.doctor.test_record import CPU_NODE, MEASURED
from tests.jobs.test_jobs import content, run
from tests.s3 import S3Server

QUICK = ("--backbone", "pixels", "--seconds", "0.05")


def test_doctor__measures_a_folder_and_says_what_a_run_will_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, table = samples.write_folder(tmp_path / "images", per_class=10), tmp_path / "out" / "table"
    samples.write(source / "train" / "flower" / "bad.jpg", b"no image")
    samples.write(source / "train" / "flower" / "notes.txt", b"no image")
    before = content(tmp_path)
    code, record = run(
        capsys, doctor, "--source", source, "--table", table, *QUICK, "--nodes", 2, "--price-per-hour", 3.6
    )
    assert code == 0, record["stderr"]
    assert content(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]
    assert record["images"] == {"images": 41, "listed": 41, "how": "listed"}
    assert record["source"]["skipped"] == {".txt": 1}
    sample = record["sample"]
    assert (sample["images"], sample["formats"]) == (41, {"JPEG": 40, "unknown": 1})
    assert (sample["median_size"], sample["largest_size"]) == ([128, 96], [128, 96])
    assert sample["rejects"] == {"unsupported": 1}
    assert sample["reject_share"] == round(1 / 41, 4)
    assert sample["first_reject"]["uri"] == str(source / "train" / "flower" / "bad.jpg")

    rates, machine = record["rates"], record["machine"]
    assert (machine["engine"], machine["on_gpu"], machine["actors"]) == ("openvino", False, 1)
    assert rates["listing"]["complete"]
    assert rates["writing"]["where"] == "the table's storage"
    core_ms, cores = record["bottleneck"]["core_ms"], machine["cores"]
    assert core_ms["decoding"] == pytest.approx(1000 / rates["decoding"]["images_per_s_per_core"], rel=0.01, abs=1e-4)
    assert core_ms["model"] == pytest.approx(1000 * cores / rates["model"]["images_per_s"], rel=0.01, abs=1e-4)
    at_most = [1000 * cores / sum(core_ms.values()), rates["reading"]["images_per_s"], rates["writing"]["images_per_s"]]
    assert 0 < record["images_per_s"] <= 1.01 * min(at_most)

    estimate = record["estimate"]
    assert (estimate["nodes"], estimate["rows"], estimate["units"]) == (2, 40, 1)
    assert estimate["seconds"] == pytest.approx(estimate["listing_s"] + 41 / (2 * record["images_per_s"]), rel=0.01)
    assert estimate["node_hours"] == pytest.approx(2 * estimate["seconds"] / 3600)
    assert estimate["cost"] == pytest.approx(3.6 * estimate["node_hours"])
    assert estimate["table_bytes"] == pytest.approx(40 * rates["writing"]["row_bytes"], rel=0.01)

    text = record["stderr"]
    assert f"Source: folder {source}: 41 images (listed)" in text
    assert f"Bottleneck: {record['bottleneck']['stage']}: " in text
    assert record["recommended"]["command"] in text
    words = shlex.split(record["recommended"]["command"])
    assert words[:3] == ["python", "-m", "jobs.embed"]
    options, _ = parse(EmbedOptions, "embed", words[3:])
    assert (options.source, options.table, options.backbone) == (str(source), str(table), "pixels")
    assert options.unit_size == record["recommended"]["unit_size"] == 128


def test_doctor__a_bucket_is_as_it_was(s3_server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bucket, options = s3_server.make_bucket("doctor"), json.dumps(s3_server.options)
    s3_server.upload(samples.write_folder(tmp_path / "images", per_class=2), f"{bucket}/images")
    store = store_for(bucket, s3_server.options)
    before = s3_server.client().list_objects_v2(Bucket="doctor")["Contents"]
    code, record = run(
        capsys,
        doctor,
        "--source",
        f"{bucket}/images",
        "--table",
        f"{bucket}/table",
        "--storage-options",
        options,
        "--table-storage-options",
        options,
        *QUICK,
        "--num-images",
        10**6,
    )
    assert code == 0, record["stderr"]
    assert s3_server.client().list_objects_v2(Bucket="doctor")["Contents"] == before
    assert not store.is_folder(f"{bucket}/table")
    assert record["images"] == {"images": 10**6, "listed": 8, "how": "given"}
    assert 0 < record["sample"]["images"] <= 8  # as many as the time allowed
    assert record["estimate"]["units"] == 1954
    assert shlex.quote(options) in record["recommended"]["command"]


def test_doctor__without_a_table_it_says_that_only_this_machine_was_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = samples.write_folder(tmp_path / "images", per_class=1)
    code, record = run(capsys, doctor, "--source", source, *QUICK, "--num-actors", 2, "--batch-size", 3)
    assert code == 0, record["stderr"]
    assert record["rates"]["writing"]["where"] == "a temporary folder"
    assert "a temporary folder" in record["stderr"]
    assert list(record["rates"]["model"]["by_batch_size"]) == ["3"]
    assert record["machine"]["actors"] == 2
    assert record["recommended"]["command"].endswith(
        f"--source {source} --table TABLE --backbone pixels --num-actors 2 --batch-size 3 --unit-size 128"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--source", "nothing"), 2, "found nothing there. Check --source."),
        (("--source", "empty"), 2, "Expected images in the source, found none (1 files passed over"),
        (("--source", "bad"), 3, "All 2 images of a sample of the source are rejects (the first: "),
        (("--source", "bad", "--table", "bad/a.jpg"), 2, "is a file"),
        (("--source", "bad", "--storage-options", '{"secret": "x"}'), 2, "would carry a credential"),
        (("--source", "bad", "--weights", "w.pt"), 2, "Backbone pixels has no weights"),
        (("--source", "bad", "--engine", "openvino", "--device", "cuda"), 2, "runs on the CPU only"),
        (("--source", "bad", "--seconds", "0"), 2, "Option --seconds: "),
    ],
)
def test_doctor__what_can_not_be_measured_is_an_error(
    arguments: tuple[str, ...],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    samples.write(tmp_path / "empty" / "notes.txt", b"no image")
    for name in ("a", "b"):
        samples.write(tmp_path / "bad" / f"{name}.jpg", b"no image")
    before = content(tmp_path)
    got, record = run(capsys, doctor, *QUICK, *arguments)
    assert (got, message in record["error"]) == (code, True), record["error"]
    assert content(tmp_path) == before


def test_command__keeps_what_was_given_and_hides_secrets(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "table": "s3://t/x",
        "exclude": ("*.gif", "draft/**"),
        "allow_http": False,
        "storage_options": {"anon": True},
        "dtype": "float16",
        "preprocess": None,
        "seconds": 2.0,
        "nodes": 3,
    }
    options = DoctorOptions(source="s3://user:hidden@b/a b", **given)
    found = command(options, {"num_actors": 6, "batch_size": None, "unit_size": 256})
    assert "hidden" not in found
    parsed, _ = parse(EmbedOptions, "embed", shlex.split(found)[3:])
    kept = {name: value for name, value in given.items() if name not in ("seconds", "nodes", "preprocess")}
    assert parsed == EmbedOptions(source="s3://b/a b", num_actors=6, unit_size=256, **kept)


@pytest.mark.parametrize(
    ("cores", "device", "actors", "actor_cpus", "read_cpus", "workers"),
    [
        (2, "cpu", 1, 1.1, 0.4, 2),
        (1, "cpu", 1, 0.6, 0.3, 1),
        (64, "cpu", 1, 32.1, 0.4, 64),
        (16, "cuda", 1, 0.5, 1.0, 15),
        (16, "cuda", 8, 0.5, 1.0, 12),
    ],
)
def test_share__what_the_actors_leave_is_for_read_tasks(
    cores: int, device: Any, actors: int, actor_cpus: float, read_cpus: float, workers: int
) -> None:
    layout = Layout(
        engine="auto",
        device=device,
        num_actors=actors,
        max_actors=actors,
        actor_cpus=actor_cpus,
        read_cpus=read_cpus,
        max_commits=16,
        num_threads=None,
        units_ahead=2,
        units_before=1,
        units_at_once=1,
        units_sent=2,
        max_reads=None,
        leave_small=False,
    )
    node = share(cores, layout)
    assert (node.cores, node.on_gpu, node.actors, node.workers) == (cores, device == "cuda", actors, workers)


def test_diagnosis_text__names_random_weights_many_rejects_and_what_is_left() -> None:
    contract = load_backbone("pixels").contract.to_json()
    found = make_record(DoctorOptions(source="s", table="t"), CPU_NODE, MEASURED, containers=True)
    record: dict[str, Any] = {"contract": contract, "source": {"identity": "webdataset s"}, **found}
    text = diagnosis_text(record)
    assert "RANDOM" not in text
    assert "removable" not in text
    assert "Source: webdataset s: 4,000,000 images (extrapolated from what was listed in the time)" in text
    assert "Sample of 80: 80 JPEG; 640 x 480 pixels, 100.0 kB; rejects: 20 truncated (25.0%)" in text
    assert "A run would end with exit code 3: --max-reject-fraction allows 0.1" in text
    record["sample"]["reject_share"] = 0.1
    record["contract"]["weights"] = "random:0"
    record["left"] = {"s3://b/t/.probe-0-data.0123456789ab.tmp": "denied"}
    text = diagnosis_text(record)
    assert "exit code 3" not in text
    assert "Weights are RANDOM (random:0)" in text
    assert "remove them yourself:\n  s3://b/t/.probe-0-data.0123456789ab.tmp" in text
