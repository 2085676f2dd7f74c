"""How fast a stage was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """What a stage got done while it was measured, alone.

    Args:
        images: How many.
        seconds: In what time.
        cpu_s: Processor seconds of all threads.
        num_bytes: Length of what was read, decoded or written.
    """

    images: int
    seconds: float
    cpu_s: float
    num_bytes: int

    @property
    def images_per_s(self) -> float:
        """Images in a second."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def core_s(self) -> float:
        """Seconds of a core that an image takes."""
        return self.cpu_s / self.images if self.images else 0.0

    @property
    def image_bytes(self) -> float:
        """Mean length of an image's bytes."""
        return self.num_bytes / self.images if self.images else 0.0


def in_turn(paces: Sequence[Pace]) -> Pace:
    """Return the pace of measurements that followed each other."""
    return Pace(
        sum(pace.images for pace in paces),
        sum(pace.seconds for pace in paces),
        sum(pace.cpu_s for pace in paces),
        sum(pace.num_bytes for pace in paces),
    )


def side_by_side(paces: Sequence[Pace]) -> Pace:
    """Return the pace of several workers at the same time: their rates add up, even if some had less to do."""
    total = in_turn(paces)
    rate = sum(pace.images_per_s for pace in paces)
    return Pace(total.images, total.images / rate if rate else 0.0, total.cpu_s, total.num_bytes)
