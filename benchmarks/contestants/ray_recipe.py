"""The recipe of Ray Data's documentation for batch inference on images, with the same network.

It follows https://docs.ray.io/en/latest/data/batch_inference.html: `read_images`, a `map` that prepares each image, a
class with the network in a pool of actors, `write_parquet`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import ray
import torch

from benchmarks.contestants.clock import Clock
from pipeline.backbones import load_backbone
from pipeline.backbones.microsoftvision import MICROSOFTVISION as PRESET

#: Small enough that a minute tells a rate.
BATCH_SIZE = 40


def prepare(row: dict[str, Any]) -> dict[str, Any]:
    """Cut and normalise one image."""
    pixels = row["image"][16:240, 16:240, ::-1].astype(np.float32) / 255
    normalised = (pixels - np.array(PRESET.mean, np.float32)) / np.array(PRESET.std, np.float32)
    return {"path": row["path"], "image": normalised.transpose(2, 0, 1)}


class Network:
    """Holds the network in an actor."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.network = load_backbone("microsoftvision-resnet50", "random:0").network

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Embed a batch."""
        with torch.inference_mode():
            embeddings = self.network(torch.tensor(batch["image"])).numpy()
        self.clock.done(len(embeddings))
        return {"path": batch["path"], "embedding": embeddings}


def main(folder: str, output: str) -> None:
    """Embed a folder into Parquet."""
    clock = Clock(f"{output}.marks")
    images = ray.data.read_images(folder, mode="RGB", size=(256, 256), include_paths=True)
    vectors = images.map(prepare).map_batches(
        Network, fn_constructor_args=(clock,), batch_size=BATCH_SIZE, compute=ray.data.ActorPoolStrategy(size=1)
    )
    vectors.write_parquet(output)
    clock.tell()


if __name__ == "__main__":
    main(*sys.argv[1:])
