"""The ledger of a run: what has become of its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from pipeline.table.amend import read_whole
from pipeline.table.commit import Counts
from pipeline.table.plan import Unit, committed_names
from pipeline.table.schema import Table

_PARALLEL_READS = 16


@dataclass(frozen=True, slots=True)
class Ledger:
    """The accounting of a run, in images; ``planned = embedded + rejected + pending``.

    A container that has not been read counts as the images it is known to hold, and as one where nobody knows yet.

    Args:
        planned: What the run is to bring into the table.
        embedded: Rows in data files.
        rejected: Rows in rejects files.
        pending: Neither yet.
        reused: How many of the embedded ones have an embedding that was copied, not computed.
    """

    planned: int
    embedded: int
    rejected: int
    pending: int
    reused: int = 0

    def to_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


def pending_units(table: Table, units: Sequence[Unit]) -> list[Unit]:
    """Return the units that are not committed."""
    committed = committed_names(table)
    return [unit for unit in units if unit.name not in committed]


def make_ledger(units: Sequence[Unit], counts: Mapping[str, Counts]) -> Ledger:
    """Count what has become of the images of some units.

    Args:
        units: The units, with what each promises by now.
        counts: What the committed ones of them hold, by their names.
    """
    planned = embedded = rejected = reused = 0
    for unit in units:
        count = counts.get(unit.name)
        if count is None:
            planned += 1 if unit.num_images is None else unit.num_images
            continue
        rows, rejects = count.rows, count.rejects
        if unit.num_images is not None:  # rows of images that a later unit is about to replace are none of this one's
            rejects = min(rejects, unit.num_images)
            rows = min(rows, unit.num_images - rejects)
        planned += rows + rejects
        embedded += rows
        rejected += rejects
        reused += min(count.reused, rows)
    return Ledger(planned, embedded, rejected, planned - embedded - rejected, reused)


def count_codes(table: Table, names: Iterable[str]) -> dict[str, int]:
    """Return how many rejects of each code some committed units have."""

    def codes(name: str) -> list[str]:
        found: list[str] = read_whole(table, table.rejects_uri(name), ["code"])["code"].to_pylist()
        return found

    count: Counter[str] = Counter()
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for found in pool.map(codes, names):
            count.update(found)
    return dict(sorted(count.items()))
