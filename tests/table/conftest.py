"""A table in memory, and stores that are asked one thing at a time."""

from __future__ import annotations

import pytest

from pipeline.table import Table
from tests.memory_store import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def table(store: MemoryStore) -> Table:
    return Table("t", store)


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a writer do one operation after the other, so that schedules can be repeated."""
    for name in ("amend._PARALLEL", "again._PARALLEL_READS", "manifest._PARALLEL_READS", "plan._PARALLEL_READS"):
        monkeypatch.setattr(f"pipeline.table.{name}", 1)
