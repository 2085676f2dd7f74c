"""The companion of a run: one actor that its processes tell what they do, and ask what has been embedded before.

One for both, since each process costs a second of a processor's time to start. The two sides have a thread each, so
that signs of life are taken also while a large table's digests are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.content import ContentIndex
from pipeline.monitor import Monitor, Signs
from pipeline.table import Table

_SIGNS, _CONTENT = "signs", "content"


class Companion:
    """A `pipeline.monitor.Monitor` and a `pipeline.content.ContentIndex`.

    The tables are read at the first question or note, not in the constructor, which would keep both sides waiting.

    Args:
        tables: Tables whose rows the content index knows.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables, self._monitor = tables, Monitor()
        self._content: ContentIndex | None = None

    @ray.method(concurrency_group=_SIGNS)
    def add(self, read: int = 0, embedded: int = 0) -> None:
        """Count some more images."""
        self._monitor.add(read, embedded)

    @ray.method(concurrency_group=_SIGNS)
    def begin(self, unit: str) -> None:
        """Note that a unit is being read."""
        self._monitor.begin(unit)

    @ray.method(concurrency_group=_SIGNS)
    def end(self, unit: str) -> None:
        """Note that a unit is read."""
        self._monitor.end(unit)

    @ray.method(concurrency_group=_SIGNS)
    def forget(self) -> None:
        """Forget which units were being read, before they are all tried again."""
        self._monitor.forget()

    @ray.method(concurrency_group=_SIGNS)
    def signs(self) -> Signs:
        """Return what has been noted."""
        return self._monitor.signs()

    @ray.method(concurrency_group=_CONTENT)
    def find(self, sha256: Sequence[str]) -> list[tuple[str, int] | None]:
        """Return data file and row of images that were embedded before, by their SHA-256 (hex)."""
        return self._known().find(sha256)

    @ray.method(concurrency_group=_CONTENT)
    def note(self, uri: str, sha256: Sequence[str]) -> None:
        """Note the rows of a data file, in order."""
        self._known().add(uri, sha256)

    def _known(self) -> ContentIndex:
        if self._content is None:
            self._content = ContentIndex(self._tables)
        return self._content


def start_companion(tables: Sequence[Table]) -> Any:
    """Start a run's companion, on the driver's own node where that has room: if the driver is lost, so is the run.

    Args:
        tables: Tables of the same features to copy from; that which the run writes among them.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    groups: Any = ray.remote(concurrency_groups={_SIGNS: 1, _CONTENT: 1})  # type: ignore[call-overload]
    companion = groups(Companion).options(**options).remote(tables)
    companion.find.remote([])  # lets it read the tables while engines are loaded
    return companion
