"""A run over a suite: what can't be had is said, what is there is not done again, tables don't mix."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import ClassLabel, Features, Image
from datasets import Dataset as Rows

from jobs import probe as probe_job
from pipeline.errors import ConfigError
from pipeline.probe import ProbeOptions, load_suite, probe
from pipeline.probe.suite import BackboneEntry
from pipeline.probe.tables import embed_dataset, source_of
from tests import samples
from tests.jobs.test_jobs import content, run

pytestmark = pytest.mark.usefixtures("ray_cluster")

PIXELS = {"name": "pixels", "backbone": "pixels"}
SPLITS = {"validation_fraction": 0.4}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    samples.write_folder(tmp_path / "data" / "photos", per_class=5)
    return tmp_path / "data"


def options(folder: Path, data: Path | None, datasets: list[dict[str, Any]], *others: dict[str, Any]) -> dict[str, Any]:
    """Write a suite, and return the options of a run over it."""
    suite = {"name": "small", "datasets": [{"splits": SPLITS, **entry} for entry in datasets]}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**suite, "backbones": [PIXELS, *others]}))
    return {"suite": str(path), "output": str(folder / "out"), "data": None if data is None else str(data)}


PHOTOS = {"name": "photos", "source": "{data}/photos", "num_images": {"train": 10, "test": 10}, "num_classes": 2}


def test_probe__what_cannot_be_had_is_not_run_and_the_rest_is(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"these are no weights")
    given = options(
        tmp_path,
        data,
        [{"name": "absent", "source": "{data}/absent", "get": "ask its authors, to {data}/absent"}, PHOTOS],
        {"name": "broken", "backbone": "microsoftvision-resnet50", "weights": str(broken)},
    )
    arguments = [text for name, value in given.items() for text in (f"--{name}", value)]
    code, record = run(capsys, probe_job, *arguments)
    assert code == 1
    assert (record["status"], record["num_not_run"]) == ("incomplete", 3)
    cells = {(cell["dataset"], cell["backbone"]): cell for cell in record["cells"]}
    assert [key for key, cell in cells.items() if cell["status"] == "done"] == [("photos", "pixels")]
    for backbone in ("pixels", "broken"):
        reason = cells["absent", backbone]["reason"]
        assert f"found nothing there. Check --source. To get it: ask its authors, to {data}/absent" in reason
        assert cells["absent", backbone]["value"] is None
    assert "broken.safetensors" in cells["photos", "broken"]["reason"]
    assert "3 of 4 results are not there" in record["stderr"]
    assert "| absent | top-1 | not run | not run |" in record["stderr"]
    assert "not run" in (tmp_path / "out" / "small.md").read_text()
    # Once the data is there, the same command goes on.
    shutil.copytree(data / "photos", data / "absent")
    code, record = run(capsys, probe_job, *arguments)
    assert (code, record["num_not_run"]) == (1, 2)
    new = {(cell["dataset"], cell["backbone"]): cell.get("num_embedded_now") for cell in record["cells"]}
    assert (new["absent", "pixels"], new["photos", "pixels"]) == (20, 0)


def test_probe__again_does_nothing_and_gives_the_same(data: Path, tmp_path: Path) -> None:
    given = ProbeOptions(**options(tmp_path, data, [PHOTOS]))
    first = probe(given)
    assert (first["status"], first["cells"][0]["num_embedded_now"]) == ("done", 20)
    folders = ("tables", "results", "heads")
    before = {folder: content(tmp_path / "out" / folder) for folder in folders}
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}
    again = probe(given)
    assert {folder: content(tmp_path / "out" / folder) for folder in folders} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert again["cells"][0] == {**first["cells"][0], "num_embedded_now": 0}
    # Another seed holds out others: the features are taken, the probe is done again.
    other = probe(given.model_copy(update={"seed": 1}))
    assert other["cells"][0]["num_embedded_now"] == 0
    assert {path: path.stat().st_mtime_ns for path in times} != times
    # And so is one of a table that has grown.
    samples.write(data / "photos" / "test" / "flower" / "new.jpg", samples.jpeg(5001))
    grown = probe(given)
    assert grown["cells"][0]["num_rows"]["test"] == 11
    assert grown["cells"][0]["notes"] == ["expected 10 images for test, found 11"]


def test_probe__says_in_what_a_dataset_is_not_as_the_suite_says(data: Path, tmp_path: Path) -> None:
    samples.write(data / "photos" / "train" / "flower" / "bad.jpg", b"no image")
    samples.write(data / "photos" / "test" / "cloud" / "new.jpg", samples.jpeg(9001))
    dataset = {**PHOTOS, "num_images": {"train": 11, "test": 11}, "num_classes": 3}
    record = probe(ProbeOptions(**options(tmp_path, data, [dataset])))
    assert record["cells"][0]["notes"] == [
        "expected 11 images for train, found 10",
        "expected 3 classes, found 2",
        "1 images rejected",
        "1 images for test of a class that no training image has, counted as wrong",
    ]


def test_probe__does_not_mix_sources_in_a_table(data: Path, tmp_path: Path) -> None:
    assert probe(ProbeOptions(**options(tmp_path, data, [PHOTOS])))["status"] == "done"
    shutil.copytree(data, tmp_path / "elsewhere")
    before = content(tmp_path / "out" / "tables")
    record = probe(ProbeOptions(**options(tmp_path, tmp_path / "elsewhere", [PHOTOS])))
    assert record["num_not_run"] == 1
    assert f"holds images of folder {data}/photos; this run has folder" in record["cells"][0]["reason"]
    assert content(tmp_path / "out" / "tables") == before


def test_probe__needs_data_only_where_a_source_asks_for_it(data: Path, tmp_path: Path) -> None:
    here = {**PHOTOS, "name": "here", "source": str(data / "photos")}
    record = probe(ProbeOptions(**options(tmp_path, None, [PHOTOS, here])))
    assert [cell["status"] for cell in record["cells"]] == ["not run", "done"]
    assert "Say with --data which folder {data} is" in record["cells"][0]["reason"]
    record = probe(ProbeOptions(**options(tmp_path, None, [PHOTOS, here]), only=("here",)))
    assert [cell["dataset"] for cell in record["cells"]] == ["here"]
    with pytest.raises(ConfigError, match=r"Expected --only to name datasets of small \(photos, here\); got there"):
        probe(ProbeOptions(**options(tmp_path, None, [PHOTOS, here]), only=("there",)))


def test_embed_dataset__a_dataset_of_the_hub_as_the_suite_has_it(tmp_path: Path) -> None:
    (dataset,) = (entry for entry in load_suite("microsoft-vision").datasets if entry.name == "cifar-100")
    given = ProbeOptions(suite="microsoft-vision", output=str(tmp_path / "out"), data=str(tmp_path))
    labels = [ClassLabel(names=names) for names in (["apple", "bear", "cloud"], ["fruit", "other"])]
    features = Features({"img": Image(), "fine_label": labels[0], "coarse_label": labels[1]})
    for split, count in (("train", 6), ("test", 3)):
        rows = [{"path": None, "bytes": samples.jpeg(i, 32, 32)} for i in range(count)]
        classes = [i % 3 for i in range(count)]
        place = tmp_path / "cifar-100" / "cifar100" / f"{split}-00000-of-00001.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        columns = {"img": rows, "fine_label": classes, "coarse_label": [0 if i == 0 else 1 for i in classes]}
        Rows.from_dict(columns, features=features).to_parquet(place)
    table = tmp_path / "out" / "table"
    backbone = BackboneEntry(name="pixels", backbone="pixels")
    record = embed_dataset(source_of(dataset, given), backbone, str(table), given, None)
    assert record["ledger"]["embedded"] == 9
    found = pq.read_table(table / "data")
    assert found.schema.names == ["uri", "sha256", "label", "split", "width", "height", "embedding"]
    pairs = Counter(zip(found["split"].to_pylist(), found["label"].to_pylist(), strict=True))
    names = ("apple", "bear", "cloud")
    assert pairs == {**{("train", name): 2 for name in names}, **{("test", name): 1 for name in names}}
