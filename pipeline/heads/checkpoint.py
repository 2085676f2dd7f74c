"""What a training has reached, in the head's folder, so that one that was killed goes on. Safetensors and JSON."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pipeline import storage
from pipeline.heads.group import Alone, Group
from pipeline.heads.models import Tensors
from pipeline.storage import StorageOptions

logger = logging.getLogger(__name__)

#: Seconds of a training between two checkpoints, at least, and by how much it is longer than writing one takes.
_INTERVAL_S, _TIMES_WRITING = 2.0, 20


@dataclass(frozen=True, slots=True)
class State:
    """What a training goes on from.

    Args:
        tensors: By name.
        notes: Everything else, as plain JSON values.
    """

    tensors: Tensors
    notes: dict[str, Any]


class Checkpoint(Protocol):
    """Where a training leaves what it has reached."""

    def load(self, stage: str) -> State | None:
        """Return what an interrupted training of the same kind has left at a stage, None where there is nothing."""

    def save(self, stage: str, state: Callable[[], State]) -> None:
        """Keep what the training has reached, if the last time was long enough ago; only then is it asked for."""

    def remove(self) -> None:
        """Forget it: the training is done."""


class NoCheckpoint:
    """For trainings that begin again when they were interrupted."""

    def load(self, stage: str) -> State | None:
        """Return None."""

    def save(self, stage: str, state: Callable[[], State]) -> None:
        """Do nothing."""

    def remove(self) -> None:
        """Do nothing."""


@dataclass
class FolderCheckpoint:
    """``checkpoint.safetensors`` in a folder: tensors, and as metadata the key, the stage and the notes (JSON).

    Of a group, the process of rank 0 reads and writes, and gives the others what it has read.

    Args:
        folder: URI of the head's folder.
        key: Tells what the training is of and how it is done; a checkpoint of another key is left alone until it is
            overwritten. Called when it is needed.
        options: Of the folder's file system.
        group: Who trains.
        interval_s: Least time between two checkpoints (seconds).
    """

    folder: str
    key: Callable[[], str]
    options: StorageOptions | None = None
    group: Group = field(default_factory=Alone)
    interval_s: float = _INTERVAL_S

    def __post_init__(self) -> None:
        folder = storage.absolute(self.folder)
        self._store = storage.store_for(folder, self.options)
        self._uri = f"{folder}/checkpoint.safetensors"
        self._known_key: str | None = None
        self._next = time.monotonic() + self.interval_s

    def load(self, stage: str) -> State | None:
        """Return what an interrupted training of the same key has left at a stage, None where there is nothing."""
        data = self.group.share(self._read(stage) if self.group.rank == 0 else b"")
        return State(load(data), json.loads(_metadata(data)["notes"])) if data else None

    def _read(self, stage: str) -> bytes:
        """Return the file, nothing where there is none that fits."""
        if self._store.info(self._uri) is None:
            return b""
        try:
            data = self._store.read_bytes(self._uri)
            found = _metadata(data)
            load(data)  # or it is damaged
            fits = found["key"] == self._own_key()
        except (KeyError, ValueError, SafetensorError) as error:
            logger.warning("The checkpoint in %s can't be read (%s): training from the start.", self.folder, error)
            return b""
        if not fits:
            logger.warning(
                "The checkpoint in %s is of another training (other options, rows, labels or splits): training from "
                "the start.",
                self.folder,
            )
            return b""
        if found["stage"] != stage:
            return b""
        logger.info("Going on from the checkpoint in %s.", self.folder)
        return data

    def save(self, stage: str, state: Callable[[], State]) -> None:
        """Write what the training has reached, if the last time was long enough ago; only then is it asked for."""
        started = time.monotonic()
        if self.group.rank or started < self._next:
            return
        reached = state()
        metadata = {"key": self._own_key(), "stage": stage, "notes": json.dumps(reached.notes)}
        tensors = {name: np.ascontiguousarray(value) for name, value in reached.tensors.items()}
        self._store.replace(self._uri, save(tensors, metadata))
        ended = time.monotonic()
        self._next = ended + max(self.interval_s, _TIMES_WRITING * (ended - started))

    def remove(self) -> None:
        """Remove what is there, this training's or another's: the folder has a head."""
        if self.group.rank == 0:
            try:
                if self._store.info(self._uri) is not None:
                    self._store.remove(self._uri)
            except OSError as error:  # it does no harm
                logger.warning("The checkpoint in %s could not be removed: %s", self.folder, storage.explained(error))

    def _own_key(self) -> str:
        if self._known_key is None:
            self._known_key = self.key()
        return self._known_key


def digest(description: dict[str, Any], arrays: Iterable[np.ndarray[Any, Any]]) -> str:
    """Return the SHA-256 (hex) of plain JSON values and arrays."""
    result = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for array in arrays:
        result.update(f"{array.dtype} {array.shape}".encode())
        result.update(np.ascontiguousarray(array).data)
    return result.hexdigest()


def _metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file: its length comes first, in 8 bytes, then JSON."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = header["__metadata__"]
    return metadata
