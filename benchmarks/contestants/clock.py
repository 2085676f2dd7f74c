"""Takes the time of a contestant."""

from __future__ import annotations

import json
import time
from pathlib import Path

#: Seconds of steady work that a rate should rest on; a contestant that can stop does so then.
ENOUGH_S = 20.0


class Clock:
    """Notes when how many images were done, in a file, since it may be another process that does them.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path, self._started = Path(path), time.time()
        self._path.write_text("")

    def done(self, num_images: int) -> None:
        """Note that some more images are done."""
        with self._path.open("a") as file:
            file.write(f"{time.time()} {num_images}\n")

    def enough(self) -> bool:
        """Return whether there has been steady work for long enough."""
        marks = self._marks()
        return marks[-1][0] - marks[0][0] >= ENOUGH_S

    def tell(self) -> None:
        """Print what was noted: the rate is that after the first images, so that no start-up counts."""
        marks = self._marks()
        first, last, steady = marks[0][0], marks[-1][0], sum(count for _, count in marks[1:])
        figures = {
            "first_s": first - self._started,
            "images": sum(count for _, count in marks),
            "steady_images": steady,
            "images_per_s": steady / (last - first) if steady else None,
        }
        print(json.dumps(figures))

    def _marks(self) -> list[tuple[float, int]]:
        lines = (line.split() for line in self._path.read_text().splitlines())
        return [(float(at), int(count)) for at, count in lines]
