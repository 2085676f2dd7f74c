"""The commit protocol with one mistake at a time, to show that the tests of the right one find it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import RejectsSettled
from pipeline.table import Committed, Table, Unit, encode, take_out
from pipeline.table.close import supersede
from tests.memory_store import MemoryStore


@dataclass(frozen=True)
class FaultyCommit:
    """Commits a unit as `pipeline.table.commit_unit` does, but for one mistake; with none, it does the same.

    Args:
        data_first: Puts the data file before the rejects file.
        follows: Takes over the rejects that an earlier attempt has settled.
        replaces_late: Takes the rows that it replaces out of older units after its own are there.
        closes: Closes an older unit that was never committed.
    """

    data_first: bool = False
    follows: bool = True
    replaces_late: bool = False
    closes: bool = True

    def __call__(
        self,
        table: Table,
        unit: Unit,
        rows: pa.Table,
        rejects: pa.Table,
        run: dict[str, Any],
        replaces: Mapping[str, pa.Array | None],
    ) -> Committed:
        """Commit one unit."""
        if self.data_first:
            table.store.put_if_absent(table.data_uri(unit.name), encode(rows, run))
        if not table.store.put_if_absent(table.rejects_uri(unit.name), encode(rejects, run)) and self.follows:
            rows, rejects = self._follow(table, unit, rows, rejects)
        if not self.replaces_late:
            self._replace(table, unit, rows, run, replaces)
        created = table.store.put_if_absent(table.data_uri(unit.name), encode(rows, run))
        if self.replaces_late:
            self._replace(table, unit, rows, run, replaces)
        return Committed(len(rows), len(rejects), created)

    def _follow(self, table: Table, unit: Unit, rows: pa.Table, rejects: pa.Table) -> tuple[pa.Table, pa.Table]:
        settled = pq.read_table(io.BytesIO(table.store.read_bytes(table.rejects_uri(unit.name))))
        uris = settled["uri"].combine_chunks()
        more = set(rejects["uri"].to_pylist()) - set(uris.to_pylist())
        if more and table.store.info(table.data_uri(unit.name)) is None:
            raise RejectsSettled(f"{more} became rejects after others had been settled")
        return rows.filter(pc.invert(pc.is_in(rows["uri"], uris))), settled

    def _replace(
        self, table: Table, unit: Unit, rows: pa.Table, run: dict[str, Any], replaces: Mapping[str, pa.Array | None]
    ) -> None:
        for name, uris in replaces.items():
            if self.closes:
                supersede(table, name, uris, unit, rows, run)
            else:
                take_out(table, name, uris)


class OverwritingStore(MemoryStore):
    """A store that does not know how to create a file only where there is none, and does not say so."""

    def _create(self, uri: str, data: bytes) -> bool:
        self.files[uri] = data
        return True
