"""An object store in memory whose every operation is a step, and writers that take their steps when they are told to.

A writer is a thread that stops before each operation on the store. The test decides whose operation comes next and what
becomes of it, so a schedule is played the same way however often it is repeated: one thread runs at a time, no clock is
asked. A writer's pools must be of one thread for that. One that is left where it stopped keeps the interpreter from
ending: finish or crash it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch
from typing import IO, Any, TypeVar

from pipeline.storage import FileInfo
from pipeline.storage.base import Conditions

#: Seconds after which a writer that does not come back is a mistake in a test; none is ever waited for otherwise.
_HANGS_S = 60.0
WRITES = frozenset(("put_if_absent", "replace", "replace_if", "remove"))

Answer = TypeVar("Answer")


class Crash(BaseException):
    """The end of a process; no code outlives it."""


class Fate(Enum):
    """What becomes of an operation, or of the writer that is about to do it."""

    HAPPENS = "happens"
    FAILS = "fails"  # nothing took place, and all tries are used up
    FAILS_UNSEEN = "fails, though it took place"
    LOSES_ITS_ANSWER = "takes place, and is tried again since nobody told so"
    CRASHES_BEFORE = "its process ends before it"
    CRASHES_AFTER = "its process ends after it"


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that a writer is about to do.

    Args:
        name: The store's method.
        uri: What it is about.
    """

    name: str
    uri: str

    @property
    def writes(self) -> bool:
        """Whether it may change the store."""
        return self.name in WRITES


class MemoryStore:
    """Files in memory; see `pipeline.storage.base.Store`.

    A file's version is a digest of its content, as S3's ETags are. That is the harder case: a file that is changed
    there and back has its old version again.

    Args:
        files: Its content by URI, also for tests to look at; the only thing that there is.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.running: Writer | None = None

    @property
    def conditions(self) -> Conditions:
        """Which conditions on a PUT it minds: all."""
        return Conditions()

    def probed(self, uri: str) -> MemoryStore:
        """Return this store, which is known to mind its conditions."""
        return self

    def list_files(self, root: str) -> Iterator[FileInfo]:
        """Yield every file below a folder."""
        below = self._do("list_files", root, lambda: sorted(uri for uri in self.files if uri.startswith(f"{root}/")))
        yield from (self._info(uri) for uri in below if "/." not in uri[len(root) :])

    def glob(self, pattern: str) -> list[FileInfo]:
        """Return the files that match."""
        return self._do("glob", pattern, lambda: [self._info(u) for u in sorted(self.files) if fnmatch(u, pattern)])

    def info(self, uri: str) -> FileInfo | None:
        """Return what is known of a file."""
        return self._do("info", uri, lambda: self._info(uri) if uri in self.files else None)

    def is_folder(self, uri: str) -> bool:
        """Return whether any file's name begins so."""
        return self._do("is_folder", uri, lambda: any(name.startswith(f"{uri}/") for name in self.files))

    def list_names(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        return self._do("list_names", folder, lambda: self._names(folder))

    def written_at(self, folder: str) -> dict[str, float]:
        """Return no time but now, for nothing here has any."""
        return self._do("written_at", folder, lambda: dict.fromkeys(self._names(folder), 0.0))

    def read_bytes(self, uri: str, max_bytes: int | None = None) -> bytes:
        """Return a file's bytes."""
        return self._do("read_bytes", uri, lambda: self._read(uri)[: None if max_bytes is None else max_bytes + 1])

    def open(self, uri: str, block_bytes: int = 0) -> IO[bytes]:
        """Open a file; what is read from it is its content at this moment."""
        return self._do("open", uri, lambda: io.BytesIO(self._read(uri)))

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Create a file unless it is there."""
        return self._do("put_if_absent", uri, lambda: self._create(uri, data))

    def replace(self, uri: str, data: bytes) -> None:
        """Write a file."""
        self._do("replace", uri, lambda: self.files.__setitem__(uri, data))

    def replace_if(self, uri: str, data: bytes, version: str) -> bool:
        """Write a file in place of a known version."""
        return self._do("replace_if", uri, lambda: self._replace_if(uri, data, version))

    def remove(self, uri: str) -> None:
        """Remove a file."""
        self._do("remove", uri, lambda: self.files.pop(uri, None))

    def _do(self, name: str, uri: str, effect: Callable[[], Answer]) -> Answer:
        # Whatever thread it is (a writer has pools of them), it is one of the writer that was told to go on.
        writer = self.running
        return effect() if writer is None else writer.meet(Operation(name, uri), effect)

    def _info(self, uri: str) -> FileInfo:
        data = self.files[uri]
        return FileInfo(uri, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())

    def _names(self, folder: str) -> list[str]:
        names = (uri.removeprefix(f"{folder}/") for uri in self.files if uri.startswith(f"{folder}/"))
        return sorted(name for name in names if "/" not in name and not name.startswith("."))

    def _read(self, uri: str) -> bytes:
        if uri not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file", uri)
        return self.files[uri]

    def _create(self, uri: str, data: bytes) -> bool:
        if uri in self.files:
            return False
        self.files[uri] = data
        return True

    def _replace_if(self, uri: str, data: bytes, version: str) -> bool:
        if uri not in self.files or self._info(uri).version != version:
            return False
        self.files[uri] = data
        return True


class Writer:
    """Work in a thread of its own, that stops before each operation on the store.

    Args:
        store: What it works on.
        name: For people.
        work: What it does.
        next: The operation that it is about to do; None once it has come to its end.
        crashed: Whether its process has ended before its work was done.
        error: What its work raised.
    """

    def __init__(self, store: MemoryStore, name: str, work: Callable[[], Any]) -> None:
        self._store, self.name, self._work = store, name, work
        self.next: Operation | None = None
        self.crashed = False
        self.error: BaseException | None = None
        self._fate = Fate.HAPPENS
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, name=name, daemon=True).start()
        self._resume()

    def step(self, fate: Fate = Fate.HAPPENS) -> None:
        """Let the next operation meet its fate, and the writer go on to the one after it."""
        self._fate = fate
        self._resume()

    def crash(self) -> None:
        """End its process where it is."""
        if self.next is not None:
            self.step(Fate.CRASHES_BEFORE)

    def meet(self, operation: Operation, effect: Callable[[], Answer]) -> Answer:
        """Stop before an operation, and do it as told."""
        while True:
            if self.crashed:
                raise Crash
            self.next = operation
            self._stopped.release()
            self._go.acquire()
            if self._fate is Fate.CRASHES_BEFORE:
                self.crashed = True
            elif self._fate is Fate.FAILS:
                raise OSError(errno.EIO, "The store is in trouble", operation.uri)
            else:
                answer = effect()
                if self._fate is Fate.HAPPENS:
                    return answer
                if self._fate is Fate.FAILS_UNSEEN:
                    raise OSError(errno.EIO, "The store gave no answer", operation.uri)
                self.crashed = self._fate is Fate.CRASHES_AFTER  # else the client tries again, a step later

    def _resume(self) -> None:
        self._store.running = self
        self._go.release()
        if not self._stopped.acquire(timeout=_HANGS_S):
            raise AssertionError(f"{self.name} hangs; the last that it was to do: {self.next}")
        self._store.running = None

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._work()
        except Crash:
            pass
        except BaseException as error:  # it is the test's to judge, in its own thread
            self.error = error
        self.next = None
        self._stopped.release()
