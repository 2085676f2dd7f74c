"""Takes the time of a contestant."""

from __future__ import annotations

import json
import time


class Clock:
    """Notes when how many images were done."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._marks: list[tuple[float, int]] = []

    def done(self, num_images: int) -> None:
        """Note that some more images are done."""
        self._marks.append((time.perf_counter(), num_images))

    def tell(self) -> None:
        """Print what was noted: the rate is that after the first images, so that no start-up counts."""
        (first, _), *others = self._marks
        seconds = others[-1][0] - first if others else 0.0
        rate = sum(count for _, count in others) / seconds if others else None
        print(json.dumps({"first_s": first - self._started, "images_per_s": rate}))
