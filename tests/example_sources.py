"""Write the files that the examples of docs/sources.md embed: python -m tests.example_sources FOLDER."""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests import samples


def write_examples(folder: Path) -> None:
    """Write one example of each kind of source, of six small photographs each."""
    photos = samples.write_folder(folder / "photos", per_class=2, splits=("train", "test"))
    samples.write(photos / "train" / "draft" / "a.jpg", samples.jpeg(90))
    paths = sorted(path for path in photos.rglob("*.jpg") if "draft" not in path.parts)
    with open(folder / "products.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "photo", "category", "fold", "price"])
        for i, path in enumerate(paths):
            writer.writerow([f"{i:04d}", path.relative_to(folder), path.parts[-2], path.parts[-3], 9.5 + i])
    (folder / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(folder / "shards" / f"train-{shard:03d}.tar", "w") as tar:
            for i, path in list(enumerate(paths))[shard::2]:
                fields = {"jpg": path.read_bytes(), "txt": f"Photograph {i}".encode()}
                fields["json"] = json.dumps({"category": path.parts[-2]}).encode()
                for field, data in fields.items():
                    member = tarfile.TarInfo(f"{i:04d}.{field}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    table = pa.table({"image": [path.read_bytes() for path in paths], "label": [path.parts[-2] for path in paths]})
    pq.write_table(table, folder / "rows.parquet")
    _save_dataset(paths, folder / "saved")


def _save_dataset(paths: list[Path], folder: Path) -> None:
    import datasets

    names = sorted({path.parts[-2] for path in paths})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = [
        {"image": {"bytes": path.read_bytes(), "path": None}, "label": names.index(path.parts[-2])} for path in paths
    ]
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows, features=features)).save_to_disk(str(folder))


if __name__ == "__main__":
    write_examples(Path(sys.argv[1]))
