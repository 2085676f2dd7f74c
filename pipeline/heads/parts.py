"""The parts of a table that a head is fitted to, chosen by and measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ConfigError
from pipeline.heads.features import Features, StreamedFeatures
from pipeline.heads.group import Alone, Group, share_of
from pipeline.heads.options import TrainOptions
from pipeline.heads.rows import TRAIN, Mask, Rows, in_order
from pipeline.heads.splits import held_out

VALIDATION, TEST = "validation", "test"
#: Share of the memory for features as they are stored and for a copy in the arithmetic of the training, at most
#: float32; the rest is for blocks on their way.
_KEPT_SHARE = 0.9
#: Share of it for the rows that a streamed part mixes.
_BUFFER_SHARE = 0.15
#: Salts of what is held out, so that validation and test are chosen independently.
_SALTS = {VALIDATION: 0, TEST: 1}


@dataclass(frozen=True, slots=True)
class Parts:
    """Which rows of a table are for what.

    Args:
        rows: The table.
        classes: K class names: those of the training rows, in order.
        names: The classes, then the labels that only other parts have.
        masks: Rows of ``train``, ``validation`` and ``test``, where there are any: bool of shape (N,).
        carved: Which of them were held out of train by content.
    """

    rows: Rows
    classes: tuple[str, ...]
    names: tuple[str, ...]
    masks: dict[str, Mask]
    carved: tuple[str, ...]

    def features(self, name: str, memory_bytes: int, group: Group | None = None) -> Features:
        """Return a part, in memory if all parts fit there.

        Args:
            name: The part; an empty one, where it isn't there.
            memory_bytes: For all of them.
            group: Whose process has a share of it.
        """
        whole = self.masks.get(name, np.zeros(len(self.rows), bool))
        mask = share_of(whole, group or Alone())
        y = self._places()[self.rows.label[mask]]
        row_bytes = self.rows.contract.embedding_dim * self.rows.itemsize
        streamed = StreamedFeatures(self.rows, mask, y, max(1, int(memory_bytes * _BUFFER_SHARE) // row_bytes))
        # The same for all processes, whatever their shares: what they do next depends on it.
        if not whole.any() or self.stored_bytes * (1 + 4 / self.rows.itemsize) <= _KEPT_SHARE * memory_bytes:
            return streamed.loaded()
        return streamed

    def all_features(self, memory_bytes: int) -> dict[str, Features]:
        """Return ``train``, ``validation`` and ``test``: see `features`."""
        return {name: self.features(name, memory_bytes) for name in (TRAIN, VALIDATION, TEST)}

    @property
    def stored_bytes(self) -> int:
        """Bytes of all parts' embeddings, as they are stored."""
        count = sum(int(mask.sum()) for mask in self.masks.values())
        return count * self.rows.contract.embedding_dim * self.rows.itemsize

    def _places(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return each label's place in ``names``."""
        order = {name: place for place, name in enumerate(self.names)}
        return np.asarray([order.get(name, -1) for name in self.rows.names], np.int64)


def divide(rows: Rows, options: TrainOptions) -> Parts:
    """Tell which rows are for what.

    Raises:
        ConfigError: There are no training rows, or of fewer than two classes.
    """
    train = rows.of_split(TRAIN)
    if not train.any():
        names = ", ".join(name for name in rows.splits if rows.of_split(name).any())
        raise ConfigError(f"Expected rows of split train in {options.table}, got {names}. Embed a train folder too.")
    masks = {name: mask for name in (VALIDATION, TEST) if (mask := rows.of_split(name)).any()}
    carved = []
    for name, fraction in ((TEST, options.test_fraction), (VALIDATION, options.validation_fraction)):
        if name not in masks and fraction:
            part = held_out(rows.content, rows.label, train, fraction, options.seed, _SALTS[name])
            train &= ~part
            masks[name] = part
            carved.append(name)
    classes = in_order({rows.names[place] for place in np.unique(rows.label[train])})
    if len(classes) < 2:
        raise ConfigError(
            f"Expected at least 2 classes among the training rows of {options.table}, got "
            f"{len(classes)}: {', '.join(classes) or 'no rows'}. Check the labels and splits."
        )
    others = {rows.names[place] for mask in masks.values() for place in np.unique(rows.label[mask])} - set(classes)
    return Parts(rows, classes, (*classes, *in_order(others)), {TRAIN: train, **masks}, tuple(carved))


def free_memory_bytes() -> int:
    """Return half of the memory that this process may still take: of the machine, or of its control group."""
    free = [_kilobytes("MemAvailable") * 1024]
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free.append(limit - used)
    return max(2**28, min(free) // 2)


def _kilobytes(name: str) -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 2**22


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
