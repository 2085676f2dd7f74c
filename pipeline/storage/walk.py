"""Walk a tree of folders: many folders at once, in the order of the names all the same."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from pipeline.storage.base import FileInfo

#: Folders that are listed at once.
PARALLEL = 16
#: Pages that are listed ahead of the reader, for each folder at work, and files on a local page.
_PAGES_AHEAD, PAGE_FILES = 4, 1000
#: The tree is opened up from its root until it has so many folders to hand out, but no deeper than so many levels.
_ENOUGH_FOLDERS, _DEEPEST = 2 * PARALLEL, 3

Page = Sequence[FileInfo]


class Folders(Protocol):
    """How one kind of storage lists a single folder."""

    def entries(self, folder: str) -> list[FileInfo | str] | None:
        """Return the files and the folders (their URIs) directly in a folder, in the order of their names.

        None where it holds so many files itself that they are better listed page by page.
        """

    def pages(self, folder: str) -> Iterator[Page]:
        """Yield every file below a folder, at any depth, in order."""


def walk(folders: Folders, root: str) -> Iterator[FileInfo]:
    """Yield every file below ``root``; folders are listed by several threads, a few pages ahead."""
    level: list[FileInfo | str] = [root]
    leaves: set[str] = set()
    for _ in range(_DEEPEST):
        places = [entry for entry in level if isinstance(entry, str) and entry not in leaves]
        if not places or len(places) >= _ENOUGH_FOLDERS:
            break
        with ThreadPoolExecutor(PARALLEL) as pool:
            opened = dict(zip(places, pool.map(folders.entries, places), strict=True))
        leaves.update(place for place, entries in opened.items() if entries is None)
        level = [item for entry in level for item in _opened(entry, opened)]
    yield from _in_order(level, folders.pages)


def _opened(entry: FileInfo | str, opened: dict[str, list[FileInfo | str] | None]) -> list[FileInfo | str]:
    """Return what is in a folder that was opened up, and anything else as it is."""
    entries = opened.get(entry) if isinstance(entry, str) else None
    return [entry] if entries is None else entries


def _in_order(level: list[FileInfo | str], pages: Callable[[str], Iterator[Page]]) -> Iterator[FileInfo]:
    places = [entry for entry in level if isinstance(entry, str)]
    stop = threading.Event()
    ahead: dict[str, queue.Queue[Page | Exception | None]] = {}

    def put(place: str, item: Page | Exception | None) -> None:
        while not stop.is_set():
            try:
                ahead[place].put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def work(place: str) -> None:
        try:
            for page in pages(place):
                put(place, page)
                if stop.is_set():
                    return
            put(place, None)
        except Exception as error:  # the reader raises it
            put(place, error)

    waiting = iter(places)
    with ThreadPoolExecutor(PARALLEL) as pool:

        def start_next() -> None:
            place = next(waiting, None)
            if place is not None:
                ahead[place] = queue.Queue(_PAGES_AHEAD)
                pool.submit(work, place)

        try:
            for _ in range(PARALLEL):
                start_next()
            for entry in level:
                if isinstance(entry, FileInfo):
                    yield entry
                    continue
                while (page := ahead[entry].get()) is not None:
                    if isinstance(page, Exception):
                        raise page
                    yield from page
                del ahead[entry]
                start_next()
        finally:
            stop.set()
