"""What a run has to do, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.actor import BackboneSpec
from pipeline.sources import Source
from pipeline.stages.commit import Finish, UnitReport
from pipeline.stages.derive import Derive
from pipeline.table import Ledger, Table, Unit


@dataclass(frozen=True, slots=True)
class Task:
    """What a run has to do.

    Args:
        table: Where the rows go.
        units: The run's units, done ones included.
        source: Where their images are.
        backbone: What to embed with.
        embedding_type: Arrow type of the embeddings.
        derive: What is made of them where they are computed, to travel on in their place; None: nothing.
        finish: Makes the data files' columns.
        identity: What identifies the run, stored in the data files.
        reuse: Other tables of the same features, to copy embeddings from.
        before: The ledger as it was.
        has_embeddings: Whether the table's own rows can be copied from.
    """

    table: Table
    units: list[Unit]
    source: Source
    backbone: BackboneSpec
    embedding_type: pa.DataType
    derive: Derive | None
    finish: Finish
    identity: dict[str, Any]
    reuse: tuple[Table, ...]
    before: Ledger
    has_embeddings: bool


@dataclass(slots=True)
class Outcome:
    """What became of the work.

    Args:
        reports: One for each unit that was tried.
        troubles: Why units stay pending, by their names.
        bound: Names of units that can't be committed as they are, since other rejects of them are settled.
        seconds: Time that it took.
    """

    reports: list[UnitReport] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    bound: set[str] = field(default_factory=set)
    seconds: float = 0.0
