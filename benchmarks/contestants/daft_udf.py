"""Daft's images and a class UDF with the same network, as its guide for batch inference has it."""

from __future__ import annotations

import sys
from typing import Any

import daft
import numpy as np
import torch
from daft import DataType, col

from benchmarks.contestants.clock import Clock
from pipeline.backbones import load_backbone
from pipeline.backbones.microsoftvision import MICROSOFTVISION as PRESET

#: Small enough that a minute tells a rate.
BATCH_SIZE = 40


@daft.cls(max_concurrency=1)
class Network:
    """Holds the network."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.network = load_backbone("microsoftvision-resnet50", "random:0").network

    @daft.method.batch(return_dtype=DataType.embedding(DataType.float32(), 2048), batch_size=BATCH_SIZE)
    def embed(self, images: Any) -> Any:
        """Embed a batch of images of 256 x 256, RGB."""
        pixels = np.stack(images.to_pylist())[:, 16:240, 16:240, ::-1].astype(np.float32) / 255
        normalised = (pixels - np.array(PRESET.mean, np.float32)) / np.array(PRESET.std, np.float32)
        with torch.inference_mode():
            embeddings = self.network(torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy())).numpy()
        self.clock.done(len(embeddings))
        return embeddings


def main(folder: str, output: str) -> None:
    """Embed a folder into Parquet."""
    clock = Clock(f"{output}.marks")
    files = daft.from_glob_path(f"{folder}/**/*.jpg").select("path")
    images = files.with_column("image", col("path").download().decode_image(mode="RGB").resize(256, 256))
    images.with_column("embedding", Network(clock).embed(col("image"))).exclude("image").write_parquet(output)
    clock.tell()


if __name__ == "__main__":
    main(*sys.argv[1:])
