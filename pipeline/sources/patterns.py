"""Files by a name, a folder or a pattern, and the split that a file's name tells."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from braceexpand import braceexpand

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.refs import SPLITS
from pipeline.storage import FileInfo, Store

#: Places of a pattern that are looked up at once.
CONCURRENT_LOOK_UPS = 16
# No letter may follow: train-00000-of-00010, train_0 and train.tar are of a split, trainer.tar is not.
_SPLIT = re.compile(rf"({'|'.join(sorted(SPLITS, key=len, reverse=True))})(?![a-z])")


class FilePattern:
    """Files that a user names all at once.

    Args:
        pattern: A file; a folder, for every fitting file below it; or a pattern with ``*``, ``**``, ``?`` or ``[…]``
            of files, or with ``{a,b}`` or ``{000..099}`` of any of these. What there is by that very name, brackets
            and all, comes before what it would stand for.
        store: What holds them.
        suffixes: Of files that fit, in lower case. A file that is named in full fits whatever its suffix.
        what: What the files are called in errors.

    Raises:
        ConfigError: Its braces are wrong, and there is nothing by that very name.
    """

    def __init__(self, pattern: str, store: Store, suffixes: tuple[str, ...], what: str) -> None:
        self._pattern, self._store = storage.absolute(pattern), store
        self._suffixes, self._what = suffixes, what
        try:
            self._expanded()
        except ConfigError:
            if not self._is_there():  # asked here only: else nothing is looked up before it is needed
                raise

    @property
    def uri(self) -> str:
        """The pattern as it is shown."""
        return _uri(self._pattern)

    def found(self, skipped: Counter[str]) -> Iterator[FileInfo]:
        """Yield the files in order, each once.

        Args:
            skipped: Counts what is passed over, by its suffix.

        Raises:
            ConfigError: There is none, or none at one of the places.
        """
        places = [self._pattern] if "{" in self._pattern and self._is_there() else self._expanded()
        seen: set[str] = set()
        pool = ThreadPoolExecutor(min(CONCURRENT_LOOK_UPS, len(places)), thread_name_prefix="look-up")
        try:
            looked_up = zip(places, pool.map(self._at, places), strict=True)
            for place, infos in looked_up:
                if infos is None:
                    raise self._nothing([place, *(each for each, others in looked_up if others is None)], len(places))
                num_fitting = 0
                for info in infos:
                    if info.uri != _uri(place) and not info.uri.lower().endswith(self._suffixes):
                        skipped[os.path.splitext(storage.base_name(info.uri))[1] or "(no suffix)"] += 1
                        continue
                    num_fitting += 1
                    if info.uri not in seen:
                        seen.add(info.uri)
                        yield info
                if not num_fitting:
                    raise self._nothing([place], len(places))
        finally:
            pool.shutdown(cancel_futures=True)  # whoever wants the first files only waits for no others

    def _is_there(self) -> bool:
        return self._store.info(self.uri) is not None or self._store.is_folder(self._pattern)

    def _expanded(self) -> list[str]:
        """Return the names and patterns that the braces give, in order and each once."""
        try:
            return sorted(set(braceexpand(self._pattern, escape=False))) if "{" in self._pattern else [self._pattern]
        except ValueError as error:
            raise ConfigError(
                f"Expected braces as in shard-{{000..099}}.tar, got {self.uri}: {error}. Check --source."
            ) from None

    def _at(self, place: str) -> Iterable[FileInfo] | None:
        """Return the files at a place, None where there is nothing; a folder is not yet listed."""
        if info := self._store.info(_uri(place)):
            return [info]
        if self._store.is_folder(place):
            return self._store.list_files(place)
        return self._store.glob(place) or None if any(mark in place for mark in "*?[") else None

    def _nothing(self, missing: list[str], num_places: int) -> ConfigError:
        if num_places == 1:
            return ConfigError(f"Expected {self._what} at {self.uri}, found none. Check --source.")
        return ConfigError(
            f"Expected {self._what} at all {num_places} places that {self.uri} names, found none at {len(missing)} of "
            f"them: {listed(map(_uri, missing))}. Correct the pattern, or bring them there."
        )


def split_by_name(uri: str) -> str | None:
    """Return the split that a file's name begins with, or else the one that its folder is named after."""
    folder, _, name = uri.lower().rpartition("/")
    match = _SPLIT.match(name) or _SPLIT.fullmatch(folder.rpartition("/")[2])
    return SPLITS[match.group(1)] if match else None


def listed(names: Iterable[str]) -> str:
    """Return some names as text: the first five in order, and how many more there are."""
    ordered = sorted(set(names))
    more = f" and {len(ordered) - 5} more" if ordered[5:] else ""
    return ", ".join(ordered[:5]) + more


def _uri(place: str) -> str:
    return storage.local_uri(place) if storage.scheme(place) == "file" else place
