"""The loop that one writes first: a PyTorch DataLoader with two workers, batches of 120, the network in float32."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.contestants.clock import Clock
from benchmarks.images import files
from pipeline.backbones import load_backbone
from pipeline.backbones.microsoftvision import MICROSOFTVISION as PRESET

BATCH_SIZE = 120


class Images(Dataset[torch.Tensor]):
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


def main(folder: str, output: str) -> None:
    """Embed as many of a folder's images as it takes to tell, and write the vectors as one NumPy file."""
    clock = Clock(f"{output}.marks")
    network = load_backbone("microsoftvision-resnet50", "random:0").network
    vectors = []
    with torch.no_grad():
        for batch in DataLoader(Images(list(files(Path(folder)))), batch_size=BATCH_SIZE, num_workers=2):
            vectors.append(network(batch))
            clock.done(len(batch))
            if clock.enough():
                break
    np.save(f"{output}.npy", torch.cat(vectors).numpy())
    clock.tell()


if __name__ == "__main__":
    main(*sys.argv[1:])
