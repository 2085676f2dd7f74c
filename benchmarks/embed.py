"""Images/s of jobs.embed against a notebook-style loop, on the same images, in one run: python -m benchmarks.embed.

The loop is what one writes first: a PyTorch DataLoader with two workers that reads and resizes with OpenCV, batches of
120, the network in float32. Both embed JPEGs of 500 x 390 made from the photographs that scikit-learn bundles.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, Dataset

from pipeline.backbones import load_backbone
from pipeline.backbones.microsoftvision import MICROSOFTVISION as PRESET
from pipeline.embed import EmbedOptions, embed

SIZE = (500, 390)


def write_images(folder: Path, count: int) -> None:
    """Write JPEGs: random pieces of two photographs, scaled to one size."""
    random = np.random.default_rng(0)
    photographs = [cv2.cvtColor(image, cv2.COLOR_RGB2BGR) for image in load_sample_images().images]
    for i in range(count):
        photograph = photographs[i % 2]
        width = int(random.integers(250, 500))
        height = width * SIZE[1] // SIZE[0]
        top, left = (int(random.integers(0, limit)) for limit in np.subtract(photograph.shape[:2], (height, width)))
        piece = cv2.resize(photograph[top : top + height, left : left + width], SIZE, interpolation=cv2.INTER_CUBIC)
        path = folder / f"class-{i % 2}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), piece, [cv2.IMWRITE_JPEG_QUALITY, 90])


class Notebook(Dataset[torch.Tensor]):
    """Reads and normalises one image at a time, as notebooks do."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        image = cv2.resize(cv2.imread(str(self.paths[i])), (256, 256))[16:240, 16:240]
        tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PRESET.mean, PRESET.std))
        return (tensor - mean) / std


def notebook_loop(folder: Path) -> int:
    """Embed every image and keep the vectors in memory; return how many there were."""
    network = load_backbone("microsoftvision-resnet50", "random:0").network
    loader = DataLoader(Notebook(sorted(folder.rglob("*.jpg"))), batch_size=120, num_workers=2)
    with torch.no_grad():
        return len(torch.cat([network(batch) for batch in loader]))


def measure(count: int) -> dict[str, Any]:
    """Run both and return the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        write_images(images, count)
        started = time.perf_counter()
        notebook_loop(images)
        notebook_s = time.perf_counter() - started
        started = time.perf_counter()
        options = EmbedOptions(source=str(images), table=f"{scratch}/table", weights="random:0")
        record = embed(options)
        whole_s = time.perf_counter() - started
    steady = count / record["stage_s"]["embed_s"]
    return {
        "images": count,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "engine": record["engines"],
        "notebook_images_per_s": round(count / notebook_s, 2),
        "embed_whole_run_images_per_s": round(count / whole_s, 2),
        "embed_steady_images_per_s": round(steady, 2),
        "whole_run_ratio": round(notebook_s / whole_s, 2),
        "steady_ratio": round(steady * notebook_s / count, 2),
    }


def main() -> None:
    """Print the figures, as a table and as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=480, help="images to embed (default: 480)")
    figures = measure(parser.parse_args().images)
    print(f"{'':28}{'images/s':>10}{'ratio':>8}")
    print(f"{'notebook-style loop':28}{figures['notebook_images_per_s']:10.1f}{1.0:8.2f}")
    for name, key in (("jobs.embed, whole run", "whole_run"), ("jobs.embed, steady state", "steady")):
        print(f"{name:28}{figures[f'embed_{key}_images_per_s']:10.1f}{figures[f'{key}_ratio']:8.2f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
