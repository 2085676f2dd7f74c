"""One set of images in every form that a source can have."""

from __future__ import annotations

import csv
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def images_of(folder: Path) -> list[dict[str, str]]:
    """Return path, label and split of every image in a folder of split/label/name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [{"path": str(p), "split": p.parts[-3], "label": p.parts[-2]} for p in paths]


def as_csv(folder: Path, place: Path) -> str:
    """Write a manifest with relative paths; return the source's URI."""
    with open(place / "images.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["split", "path", "label", "price"])
        writer.writeheader()
        for i, row in enumerate(images_of(folder)):
            writer.writerow({**row, "path": Path("..", Path(row["path"]).relative_to(place.parent)), "price": i / 2})
    return str(place / "images.csv")


def as_manifest(folder: Path, place: Path) -> str:
    """Write a Parquet manifest with absolute paths and typed columns."""
    rows = images_of(folder)
    table = pa.table(
        {
            "uri": [row["path"] for row in rows],
            "label": pa.array([row["label"] for row in rows]).dictionary_encode(),
            "split": [row["split"] for row in rows],
            "product_id": pa.array(range(len(rows)), pa.uint64()),
            "tags": pa.array([["a", str(i)] for i in range(len(rows))], pa.list_(pa.string())),
        }
    )
    pq.write_table(table, place / "manifest.parquet")
    return str(place / "manifest.parquet")


def as_shards(folder: Path, place: Path) -> str:
    """Write two tar shards a split, their members shuffled."""
    splits = sorted({row["split"] for row in images_of(folder)})
    for split in splits:
        rows = [row for row in images_of(folder) if row["split"] == split]
        for shard in range(2):
            members: list[tuple[str, bytes]] = []
            for i, row in list(enumerate(rows))[shard::2]:
                suffix = Path(row["path"]).suffix.lstrip(".") or "jpg"
                members.append((f"{i:04d}.{suffix}", Path(row["path"]).read_bytes()))
                members.append((f"{i:04d}.cls", row["label"].encode()))
                members.append((f"{i:04d}.json", json.dumps({"path": Path(row["path"]).name}).encode()))
            random.Random(shard).shuffle(members)
            with tarfile.open(place / f"{split}-{shard:03d}.tar", "w") as tar:
                for name, data in members:
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return str(place / f"{{{','.join(splits)}}}-{{000..001}}.tar")


def as_parquet(folder: Path, place: Path) -> str:
    """Write images as bytes, in row groups of seven rows."""
    rows = images_of(folder)
    table = pa.table(
        {
            "image": pa.array([{"bytes": Path(row["path"]).read_bytes(), "path": None} for row in rows]),
            "label": [row["label"] for row in rows],
            "split": [row["split"] for row in rows],
        }
    )
    (place / "parquet").mkdir()
    pq.write_table(table.slice(0, 20), place / "parquet" / "a.parquet", row_group_size=7)
    pq.write_table(table.slice(20), place / "parquet" / "b.parquet", row_group_size=7)
    return str(place / "parquet")


def as_saved(folder: Path, place: Path) -> str:
    """Save a Hugging Face DatasetDict."""
    import datasets

    rows = images_of(folder)
    names = sorted({row["label"] for row in rows})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    parts = {
        split: datasets.Dataset.from_list(
            [
                {"image": {"bytes": Path(row["path"]).read_bytes(), "path": None}, "label": names.index(row["label"])}
                for row in rows
                if row["split"] == split
            ],
            features=features,
        )
        for split in ("train", "test")
    }
    datasets.DatasetDict(parts).save_to_disk(str(place / "saved"))
    return str(place / "saved")


FORMS: dict[str, Callable[[Path, Path], str]] = {
    "csv": as_csv,
    "manifest": as_manifest,
    "webdataset": as_shards,
    "parquet": as_parquet,
    "huggingface": as_saved,
}
