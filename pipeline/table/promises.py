"""What a table's plans promise, taken together: who holds which image, in some 60 bytes an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.digests import DigestMap, Digests, GrowingArray, Numbers, digests_of
from pipeline.refs import extra_schema
from pipeline.table.plan import Plan, Unit, plan_batches
from pipeline.table.schema import Table

#: The unit of an image that is promised no more.
NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Known:
    """Digests of a table of refs, row by row.

    Args:
        uris: uint64 of shape (N, 2).
        versions: uint64 of shape (N,); 0 where the source doesn't know.
        details: uint64 of shape (N,), of label, split, number of images and extra columns.
    """

    uris: Digests
    versions: NDArray[np.uint64]
    details: NDArray[np.uint64]


def know(refs: pa.Table, containers: bool) -> Known:
    """Digest a table of refs or of a plan.

    A container and an image of the same URI are two things, and get different digests.
    """
    versions = digests_of(refs["version"])[:, 0].copy()
    versions[np.asarray(pc.equal(refs["version"], ""))] = 0
    names = ["label", "split", "num_images", *sorted(extra_schema(refs.schema).names)]
    # A column that is null says nothing, so that a column which came later changes no image that hasn't got it.
    texts = [
        pc.coalesce(pc.binary_join_element_wise(f"{name}=", _text(refs[name]), "\x1f", ""), pa.scalar(""))
        for name in names
    ]
    details = digests_of(pc.binary_join_element_wise(*texts, ""))[:, 0]
    uris = pc.binary_join_element_wise("container ", refs["uri"], "") if containers else refs["uri"]
    return Known(digests_of(uris), versions, details)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_null(column.type):
        return pc.cast(column, pa.string())
    try:
        return pc.cast(column, pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        pass  # lists and structs have no text of Arrow's, and bytes are not always text
    return pa.chunked_array([[None if value is None else repr(value) for value in column.to_pylist()]], pa.string())


@dataclass(slots=True)
class Promises:
    """The state that a table's plans add up to; later plans win.

    Args:
        plans: The plans so far, in order.
        units: Every unit, by its ordinal, with the plan it belongs to.
    """

    plans: list[Plan] = field(default_factory=list)
    units: list[tuple[Plan, Unit]] = field(default_factory=list)
    _places: DigestMap = field(default_factory=DigestMap)
    _versions: GrowingArray = field(default_factory=lambda: GrowingArray(np.uint64))
    _details: GrowingArray = field(default_factory=lambda: GrowingArray(np.uint64))
    _unit_of: GrowingArray = field(default_factory=lambda: GrowingArray(np.int32))
    _held_by: GrowingArray = field(default_factory=lambda: GrowingArray(np.int32))
    _listed: GrowingArray = field(default_factory=lambda: GrowingArray(np.bool_))

    def __len__(self) -> int:
        return len(self._places)

    def load(self, table: Table, plan: Plan) -> None:
        """Take the next plan in."""
        self.add_plan(plan, plan_batches(table, plan))

    def add_plan(self, plan: Plan, batches: Iterator[pa.Table]) -> None:
        """Take the next plan in, from its units' rows."""
        self.plans.append(plan)
        for refs in batches:
            numbers = pc.unique(refs["unit"]).to_pylist()
            ordinal = NOWHERE
            if numbers != [-1]:
                (number,) = numbers
                total = None if refs["num_images"].null_count else pc.sum(refs["num_images"]).as_py()
                ordinal = len(self.units)
                self.units.append((plan, Unit(plan.name, number, total)))
            self._promise(know(refs, plan.containers), ordinal)

    def _promise(self, known: Known, unit: int) -> None:
        places = self.find(known)
        old, new = places[places >= 0], np.flatnonzero(places < 0)
        for column, values in ((self._versions, known.versions), (self._details, known.details)):
            column.values[old] = values[places >= 0]
            column.extend(values[new])
        self._held_by.values[old] = np.where(
            self._unit_of.values[old] >= 0, self._unit_of.values[old], self._held_by.values[old]
        )
        self._unit_of.values[old] = unit
        self._places.add(known.uris[new], np.arange(len(self._listed), len(self._listed) + len(new)))
        self._unit_of.extend(np.full(len(new), unit, np.int32))
        self._held_by.extend(np.full(len(new), NOWHERE, np.int32))
        self._listed.extend(np.zeros(len(new), np.bool_))

    def note(self, known: Known) -> None:
        """Note that the source has images that no plan knows yet."""
        self._promise(known, NOWHERE)
        self._listed.values[len(self) - len(known.versions) :] = True

    def find(self, known: Known) -> Numbers:
        """Return the place of each image, -1 for one that no plan knows."""
        return self._places.find(known.uris)

    def differs(self, known: Known, places: Numbers) -> NDArray[np.bool_]:
        """Return which images are others than was promised; ``places`` are theirs."""
        versions = self._versions.values[places]
        changed = (versions != known.versions) & (versions != 0) & (known.versions != 0)
        return np.asarray(changed | (self._details.values[places] != known.details), np.bool_)

    def holders(self, places: Numbers) -> NDArray[np.int32]:
        """Return the ordinal of the unit that holds each image by the latest plan, `NOWHERE` for none."""
        return np.asarray(self._unit_of.values[places], np.int32)

    def former_holders(self, places: Numbers) -> NDArray[np.int32]:
        """Return the ordinal of the unit that held each image before the latest plan that names it."""
        return np.asarray(self._held_by.values[places], np.int32)

    def replaced_by(self, units: Sequence[bool]) -> set[str]:
        """Return the names of the units that held before what some units hold now; ``units`` tells them by ordinal."""
        mine = np.append(np.asarray(units, bool), False)[self._unit_of.values]
        former = self._held_by.values[mine]
        return {self.units[ordinal][1].name for ordinal in np.unique(former[former >= 0]).tolist()}

    def units_by_plan(self) -> dict[str, list[Unit]]:
        """Return all units of each plan, by its name and in order, with what each promises by now."""
        plans: dict[str, list[Unit]] = {}
        for (plan, unit), promised in zip(self.units, self.promised().tolist(), strict=True):
            gone = plan.containers and not promised
            now = 0 if gone else unit.num_images if plan.containers else promised
            plans.setdefault(plan.name, []).append(replace(unit, num_images=now))
        return plans

    def mark_listed(self, places: Numbers) -> NDArray[np.bool_]:
        """Note that the source has these images; return which of them were marked already."""
        before = self._listed.values[places].copy()
        self._listed.values[places] = True
        return np.asarray(before, np.bool_)

    def promised(self) -> NDArray[np.int64]:
        """Return how many refs each unit holds by now."""
        holders = self._unit_of.values
        return np.bincount(holders[holders >= 0], minlength=len(self.units))

    def listed(self) -> NDArray[np.int64]:
        """Return how many of the refs that each unit holds were listed."""
        holders = self._unit_of.values[self._listed.values]
        return np.bincount(holders[holders >= 0], minlength=len(self.units))

    def unlisted(self, units: NDArray[np.bool_]) -> Numbers:
        """Return the places of the images that some units hold, and that were not listed."""
        holders = self._unit_of.values
        return np.flatnonzero((holders >= 0) & ~self._listed.values & np.append(units, False)[holders])
