"""What is possible in one process: threads that decode beside the engine. No Ray, no Parquet, no accounts."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from benchmarks.contestants.clock import Clock
from benchmarks.images import files
from pipeline import storage
from pipeline.backbones import load_backbone
from pipeline.engines import load_engine
from pipeline.engines.load import available_cores
from pipeline.images import Limits, Pixels
from pipeline.preprocessing import Preprocessing, decode_and_crop

#: Batches that are decoded ahead.
_AHEAD = 8


def _decode(preprocessing: Preprocessing, paths: list[Path]) -> Pixels:
    return np.stack([decode_and_crop(preprocessing, Limits(), path.read_bytes())[0] for path in paths])


def _ahead(
    pool: ThreadPoolExecutor, decode: Callable[[list[Path]], Pixels], batches: Iterator[list[Path]], size: int
) -> Iterator[Pixels]:
    """Yield decoded batches, others being decoded meanwhile; the last one, where it is short, doesn't count."""
    waiting: deque[Future[Pixels]] = deque(pool.submit(decode, batch) for batch in islice(batches, _AHEAD))
    while waiting:
        pixels = waiting.popleft().result()
        waiting.extend(pool.submit(decode, batch) for batch in islice(batches, 1))
        if len(pixels) == size:
            yield pixels


def main(folder: str, output: str, precision: str = "auto") -> None:
    """Embed a folder's images, again and again until it tells enough, and write the vectors as one NumPy file."""
    clock = Clock(f"{output}.marks")
    backbone = load_backbone("microsoftvision-resnet50", "random:0")
    engine = load_engine(backbone, precision=precision, cache_dir=storage.default_cache_dir())  # type: ignore[arg-type]
    paths, size = cycle(files(Path(folder))), engine.info.batch_size
    batches = iter(partial(lambda: list(islice(paths, size))), [])
    vectors = []
    with ThreadPoolExecutor(available_cores()) as pool:
        decode = partial(_decode, backbone.preprocessing)
        for embeddings in engine.embed_batches(_ahead(pool, decode, batches, size)):
            vectors.append(embeddings)
            clock.done(size)
            if clock.enough():
                break
    np.save(f"{output}.npy", np.concatenate(vectors))
    clock.tell()


if __name__ == "__main__":
    main(*sys.argv[1:])
