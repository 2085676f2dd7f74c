"""Hugging Face datasets: saved ones, local and remote, and the hub's layout; and that nothing else is touched."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import ConfigError, RejectCode, TransientError
from pipeline.sources.huggingface import HuggingFaceSource
from tests import samples
from tests.s3 import S3Server
from tests.sources.parquet_files import read, read_all, refs, reject

datasets = pytest.importorskip("datasets")
ROOT = Path(__file__).parents[2]


def dataset(*seeds: int, **columns: Any) -> Any:
    """Return a dataset of images, labels and typed extras."""
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["cat", "dog"]),
        taken=datasets.Value("timestamp[ns]"),
        price=datasets.Value("decimal128(9, 2)"),
        box=datasets.List(datasets.Value("float32")),
        grid=datasets.Array2D((1, 2), "int8"),
        **{name: datasets.Value(str(pa.array(values).type)) for name, values in columns.items()},
    )
    rows = {
        "image": [{"bytes": samples.jpeg(seed), "path": f"{seed}.jpg"} for seed in seeds],
        "label": [seed % 2 for seed in seeds],
        "taken": list(seeds),
        "price": [None for _ in seeds],
        "box": [[0.5] * seed for seed in seeds],
        "grid": [[[seed, 1]] for seed in seeds],
    }
    return datasets.Dataset.from_dict({**rows, **columns}, features=features)


def save(what: Any, path: Path) -> Path:
    what.save_to_disk(path)
    return path


def test_read__a_dataset_dict_gives_images_labels_splits_and_typed_columns(tmp_path: Path) -> None:
    splits = datasets.DatasetDict(train=dataset(*range(70)), val=dataset(71, 72))
    root = save(splits, tmp_path / "saved #1 ü")
    source = HuggingFaceSource(str(root))
    slices = refs(source, 40)
    assert [ref["uri"][0].as_py() for ref in slices] == [
        f"{root}/train#rows=0+",
        f"{root}/train#rows=40+",
        f"{root}/val#rows=0+",
    ]
    assert [ref["num_images"][0].as_py() for ref in slices] == [40, 30, 2]
    states = [json.loads((root / name / "state.json").read_text()) for name in ("train", "train", "val")]
    assert [ref["version"][0].as_py() for ref in slices] == [state["_fingerprint"] for state in states]
    parts = [read(source, ref) for ref in slices]
    assert [data for part, _ in parts for data in part] == [samples.jpeg(seed) for seed in (*range(70), 71, 72)]
    rows = pa.concat_tables(part for _, part in parts)
    assert rows["uri"].to_pylist() == [f"{root}/train#row={n}" for n in range(70)] + [
        f"{root}/val#row=0",
        f"{root}/val#row=1",
    ]
    assert rows["label"].to_pylist() == [("cat", "dog")[seed % 2] for seed in (*range(70), 71, 72)]
    assert rows["split"].to_pylist() == ["train"] * 70 + ["validation"] * 2
    assert (
        source.columns()
        == rows.schema.remove(0).remove(0).remove(0)
        == pa.schema(
            [
                ("taken", pa.timestamp("ns")),
                ("price", pa.decimal128(9, 2)),
                ("box", pa.list_(pa.float32())),
                ("grid", pa.list_(pa.list_(pa.int8()))),
                ("image_path", pa.string()),
            ]
        )
    )
    assert rows["box"].to_pylist()[2] == [0.5, 0.5]
    assert rows["grid"].to_pylist()[-1] == [[72, 1]]
    assert rows["image_path"].to_pylist()[-1] == "72.jpg"
    assert source.identity == f"huggingface {root}"


@pytest.mark.parametrize(
    ("split", "options", "expected"),
    [
        (None, {}, [None, None]),
        ("val", {}, ["validation"] * 2),
        ("val", {"split_from": "none"}, [None, None]),
        ("val", {"split_from": "column:fold"}, ["train", "b"]),
    ],
)
def test_split__of_a_single_dataset(tmp_path: Path, split: str | None, options: dict[str, str], expected: Any) -> None:
    single = dataset(0, 1, fold=["training", "b"])
    single.info.splits, single._split = None, datasets.NamedSplit(split) if split else None
    root = save(single, tmp_path / "saved")
    rows = read_all(HuggingFaceSource(str(root), **options))
    assert rows["split"].to_pylist() == expected
    assert rows["uri"].to_pylist() == [f"{root}#row=0", f"{root}#row=1"]


def test_options__that_do_not_fit_fail_before_any_work(tmp_path: Path) -> None:
    root = str(save(dataset(0, score=[0.5], mask=[b"m"]), tmp_path / "saved"))
    with pytest.raises(ConfigError, match="--label-from: expected auto, column:NAME or none"):
        HuggingFaceSource(root, label_from="parent")
    with pytest.raises(ConfigError, match="--image-column: expected .*found 'image', 'mask'"):
        HuggingFaceSource(root).columns()
    with pytest.raises(ConfigError, match="--label-from: expected strings, .*'score' .*got double"):
        HuggingFaceSource(root, image_column="image", label_from="column:score").columns()
    with pytest.raises(ConfigError, match=r"--columns: .*got \['nope'\]"):
        HuggingFaceSource(root, image_column="image", columns="nope").columns()
    assert HuggingFaceSource(root, image_column="image", columns="mask").columns().names == ["mask"]


def test_refs__splits_must_agree(tmp_path: Path) -> None:
    splits = datasets.DatasetDict(train=dataset(0, x=[1]), test=dataset(0, x=["1"]))
    source = HuggingFaceSource(str(save(splits, tmp_path / "saved")))
    with pytest.raises(ConfigError, match="'x' is int64 in .*train, but string in .*test"):
        refs(source)


def test_columns__of_what_is_no_dataset_is_an_error(tmp_path: Path) -> None:
    samples.write(tmp_path / "notes.txt", b"text")
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="Expected a dataset that save_to_disk .*found neither"):
            HuggingFaceSource(str(place)).columns()
    root = save(dataset(0), tmp_path / "saved")
    (root / "data-00000-of-00001.arrow").write_bytes(b"text")
    with pytest.raises(ConfigError, match="can't be opened"):
        HuggingFaceSource(str(root)).columns()
    (root / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(ConfigError, match="can't be opened"):
        HuggingFaceSource(str(root)).columns()
    (root / "state.json").write_text("{")
    with pytest.raises(ConfigError, match="Expected JSON in .*state.json"):
        HuggingFaceSource(str(root)).columns()


def test_columns__without_the_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = save(dataset(0), tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'vision-embedding-pipeline\[huggingface\]'"):
        HuggingFaceSource(str(root)).columns()


def paths_only(root: Path, paths: list[str | None]) -> Path:
    """Save a dataset that names image files instead of holding them, which `save_to_disk` itself never does."""
    root = save(dataset(*range(len(paths))), root)
    table = datasets.load_from_disk(root).data.table
    kind = table.schema.field("image").type
    images = pa.array([{"bytes": None, "path": path} for path in paths], kind)
    table = table.set_column(0, table.schema.field("image"), images)
    with pa.OSFile(str(root / "new"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    os.replace(root / "new", root / "data-00000-of-00001.arrow")
    return root


def test_read__a_path_without_bytes_is_read_where_it_is_a_local_file(tmp_path: Path) -> None:
    absolute = samples.write(tmp_path / "a.jpg", samples.jpeg(1))
    os.mkfifo(tmp_path / "pipe")
    odd = [
        "nowhere.jpg",
        "/" + "x" * 5000,
        "a\0b",
        "http://localhost/a.jpg",
        str(tmp_path / "pipe"),
        str(tmp_path),
        None,
    ]
    root = paths_only(tmp_path / "saved", [str(absolute), "own/b.jpg", *odd])
    samples.write(root / "own" / "b.jpg", samples.jpeg(2))
    source = HuggingFaceSource(str(root))
    data, rows = read(source, refs(source)[0])
    assert data[:2] == [samples.jpeg(1), samples.jpeg(2)]
    assert [reject(image).code for image in data[2:]] == [RejectCode.MISSING] * len(odd)
    assert reject(data[2]).message == "The row has no bytes (path nowhere.jpg)."
    assert len(rows) == 9
    assert read(source, refs(source)[0], max_bytes=10)[0][0] == samples.jpeg(1)[:11]


def test_read__a_split_that_vanished_is_rejects_but_a_vanished_dataset_is_not(tmp_path: Path) -> None:
    root = save(datasets.DatasetDict(train=dataset(0), test=dataset(1)), tmp_path / "saved")
    source = HuggingFaceSource(str(root))
    ref = refs(source)[1]
    source = pickle.loads(pickle.dumps(source))
    shutil.rmtree(root / "test")
    data, rows = read(source, ref)
    assert [reject(image).code for image in data] == [RejectCode.MISSING]
    assert rows["uri"].to_pylist() == [f"{root}/test#row=0"]
    shutil.rmtree(root)
    with pytest.raises(TransientError, match="is gone"):
        read(source, ref)


def test_read__a_dataset_that_shrank_gives_what_is_there(tmp_path: Path) -> None:
    root = save(dataset(*range(10)), tmp_path / "saved")
    source = HuggingFaceSource(str(root))
    first, second = refs(source, 6)
    shutil.rmtree(root)
    save(dataset(*range(8)), root)
    source = pickle.loads(pickle.dumps(source))
    assert [len(read(source, ref)[0]) for ref in (first, second)] == [6, 2]


def test_read__what_a_damaged_file_can_not_give_is_rejects(tmp_path: Path) -> None:
    root = save(dataset(*range(4)), tmp_path / "saved")
    source = HuggingFaceSource(str(root))
    (ref,) = refs(source)
    file = root / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:-3000])
    source = pickle.loads(pickle.dumps(source))
    data, _ = read(source, ref)
    assert [reject(image).code for image in data] == [RejectCode.UNDECODABLE] * 4
    state = json.loads((root / "state.json").read_text())
    (root / "state.json").write_text(json.dumps({**state, "_fingerprint": "other"}))
    with pytest.raises(TransientError, match="changed while it was read"):
        read(source, ref)


def test_read__the_layout_of_the_hub(tmp_path: Path) -> None:
    for name, seeds in (
        ("train-00000-of-00002", (0, 1)),
        ("train-00001-of-00002", (2,)),
        ("test-00000-of-00001", (3,)),
    ):
        (tmp_path / "data").mkdir(exist_ok=True)
        dataset(*seeds).to_parquet(tmp_path / "data" / f"{name}.parquet")
    samples.write(tmp_path / "README.md", b"---\n---\n")
    source = HuggingFaceSource(str(tmp_path), columns="grid")
    assert source.columns() == pa.schema([("grid", pa.list_(pa.list_(pa.int8())))])
    rows = read_all(source)
    assert rows["split"].to_pylist() == ["test", "train", "train", "train"]
    assert rows["label"].to_pylist() == ["dog", "cat", "dog", "cat"]
    assert source.skipped == {".md": 1}
    assert rows["uri"][0].as_py() == f"{tmp_path}/data/test-00000-of-00001.parquet#row=0"


@pytest.mark.s3
def test_read__a_remote_dataset_is_copied_once_a_node(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    uri = f"{s3_server.make_bucket('hugging-face')}/a/saved"
    splits = datasets.DatasetDict(train=dataset(0, 1), test=dataset(2))
    s3_server.upload(save(splits, tmp_path / "saved"), uri)
    source = HuggingFaceSource(uri, s3_server.options)
    for each in (source, pickle.loads(pickle.dumps(source))):
        rows = read_all(each)
        assert rows["uri"].to_pylist() == [f"{uri}/train#row=0", f"{uri}/train#row=1", f"{uri}/test#row=0"]
        assert rows["label"].to_pylist() == ["cat", "dog", "cat"]
    (folder,) = (tmp_path / "tmp").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    names = ["data-00000-of-00001.arrow", "dataset_info.json", "state.json"]
    assert [sorted(os.listdir(copy)) for copy in folder.iterdir() if copy.is_dir()] == [names, names]
    s3_server.upload(save(datasets.DatasetDict(train=dataset(5), test=dataset(2)), tmp_path / "other"), uri)
    (ref, _) = refs(HuggingFaceSource(uri, s3_server.options))
    assert read(HuggingFaceSource(uri, s3_server.options), ref)[0] == [samples.jpeg(5)]
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="Expected a folder of this user's own"):
        HuggingFaceSource(uri, s3_server.options).columns()


ALONE = """
import socket, sys

def refuse(*address, **_):
    raise AssertionError(f"network: {address}")

socket.socket.connect = socket.getaddrinfo = refuse
from pipeline.sources.huggingface import HuggingFaceSource
for place in sys.argv[1:]:
    source = HuggingFaceSource(place)
    tables = [table for table in source.refs(10)]
    print(len(list(source.read(tables[0].slice(0, 1), 10**6).images())))
assert not {"torch", "ray", "tensorflow"} & set(sys.modules)
"""


def test_source__asks_nobody_and_writes_nothing(tmp_path: Path) -> None:
    saved = save(dataset(0, 1), tmp_path / "data" / "saved")
    hub = tmp_path / "data" / "hub"
    hub.mkdir()
    dataset(0).to_parquet(hub / "train.parquet")
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "tmp"}
    command = [sys.executable, "-B", "-c", ALONE, str(saved), str(hub)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr, done.returncode) == ("2\n1\n", "", 0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "tmp"} == before
