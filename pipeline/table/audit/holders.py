"""Who must hold which image's row, by all plans together and the units that are committed; and who does.

The units that were ever to hold an image are a chain, in the order of the plans. The last *committed* one of them holds
its row: what it replaced left before it was committed, and never comes back. If a later unit is still pending, or a
plan that takes the image back was not yet followed, the row may have left already or not. Files only lose rows; so all
this is true of a list of committed units also while other runs commit more, as long as the plans are read after it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.digests import DigestMap, Digests, GrowingArray, Numbers, digests_of, first_of_each
from pipeline.table.plan import Plan, Unit
from pipeline.table.schema import unit_name

#: Whether an image's row leaves its holder: it stays; it may have left; it has left.
STAYS, MAY_LEAVE, HAS_LEFT = 0, 1, 2
NOBODY = -1

#: Of one image, in 11 bytes. ``holder``: the unit that holds it. ``file``: the file that it was found in, its unit's
#: number here times two, and one more for a reject. ``promised``: by the latest plan. ``planned``: by any plan.
_IMAGE = np.dtype([("holder", "i4"), ("file", "i4"), ("leaves", "u1"), ("promised", "?"), ("planned", "?")])


@dataclass(slots=True)
class Container:
    """A container that plans promise.

    Args:
        holder: The unit that holds its images' rows.
        leaves: Whether they leave it.
        promised: Whether the latest plan promises it.
        num_images: How many images it has; None where only reading tells.
    """

    holder: int = NOBODY
    leaves: int = STAYS
    promised: bool = False
    num_images: int | None = None


@dataclass(slots=True)
class Holders:
    """What is to be where, and what was found where.

    Args:
        units: Every unit, with its plan; None where that is missing.
        ordinals: The units' places in ``units``, by their names.
        containers: By their URIs.
    """

    units: list[tuple[Plan | None, Unit]] = field(default_factory=list)
    ordinals: dict[str, int] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    _places: DigestMap = field(default_factory=DigestMap)
    _images: GrowingArray = field(default_factory=lambda: GrowingArray(_IMAGE))

    @property
    def images(self) -> NDArray[Any]:
        """All images, by their places: those of plans, and what else was found."""
        return self._images.values

    def add_unit(self, plan: Plan | None, unit: Unit) -> int:
        """Take a unit in, and return its ordinal."""
        self.ordinals[unit.name] = len(self.units)
        self.units.append((plan, unit))
        return len(self.units) - 1

    def add_plan(self, plan: Plan, batches: Iterator[pa.Table], committed: Collection[str], followed: bool) -> None:
        """Take the next plan in.

        Args:
            plan: The plan.
            batches: Its units' rows.
            committed: The names of the units that are committed.
            followed: Whether the rows that it takes back are out, where it takes some back.

        Raises:
            ValueError: It is not as plans are.
        """
        units = 0
        for refs in batches:
            numbers = pc.unique(refs["unit"]).to_pylist()
            if plan.num_units and numbers != [units]:
                raise ValueError(f"expected rows of unit {units} in row group {units}, got those of {numbers}")
            if not plan.num_units and numbers != [-1]:
                raise ValueError(f"expected rows without a unit, got those of {numbers}")
            ordinal, is_there = NOBODY, followed
            if plan.num_units:
                name = unit_name(plan.name, units)
                ordinal, is_there = self.add_unit(plan, Unit(plan.name, units, _total(refs))), name in committed
                units += 1
            self._promise(plan, refs, ordinal, is_there)
        if units != plan.num_units:
            raise ValueError(f"expected {plan.num_units} units, got {units}")

    def _promise(self, plan: Plan, refs: pa.Table, ordinal: int, done: bool) -> None:
        """Note what a plan says of images: that a unit is to hold them, or none; and whether this is done."""
        if plan.containers:
            for uri, num_images in zip(refs["uri"].to_pylist(), refs["num_images"].to_pylist(), strict=True):
                of_one = self.containers.setdefault(uri, Container())
                of_one.num_images, of_one.promised = num_images, ordinal != NOBODY
                if ordinal != NOBODY and done:
                    of_one.holder, of_one.leaves = ordinal, STAYS
                else:
                    of_one.leaves = max(of_one.leaves, HAS_LEFT if done else MAY_LEAVE)
            return
        places = self._add(digests_of(refs["uri"]))
        self.images["planned"][places] = True
        self.images["promised"][places] = ordinal != NOBODY
        if ordinal != NOBODY and done:
            self.images["holder"][places], self.images["leaves"][places] = ordinal, STAYS
        else:
            leaves = np.maximum(self.images["leaves"][places], HAS_LEFT if done else MAY_LEAVE)
            self.images["leaves"][places] = leaves

    def _add(self, digests: Digests) -> Numbers:
        """Return the places of images; those that are not known yet get one."""
        places = self._places.find(digests)
        if len(new := np.flatnonzero(places < 0)):
            new = new[first_of_each(digests[new])]
            self._places.add(digests[new], np.arange(len(self._images), len(self._images) + len(new)))
            unknown = np.zeros(len(new), _IMAGE)
            unknown["holder"] = unknown["file"] = NOBODY
            self._images.extend(unknown)
            places = self._places.find(digests)
        return places

    def find(self, uris: pa.ChunkedArray) -> Numbers:
        """Return the places of images, -1 for one that is not known."""
        return self._places.find(digests_of(uris))

    def note_found(self, uris: pa.ChunkedArray, ordinal: int, rejects: bool) -> list[tuple[int, int]]:
        """Note the rows of a unit's file.

        Returns:
            Rows whose image was found before: the row's number, and the file that has it, too, as in ``file``.
        """
        places, file = self._add(digests_of(uris)), 2 * ordinal + rejects
        before = self.images["file"][places]
        again = np.ones(len(places), bool)
        again[np.unique(places, return_index=True)[1]] = False
        # Of two files, that of the unit which is to hold the row counts: the other one has it too many.
        mine = (before == NOBODY) | (self.images["holder"][places] == ordinal)
        self.images["file"][places[mine]] = file
        twice = np.flatnonzero((before != NOBODY) | again)
        return [(int(row), file if again[row] else int(before[row])) for row in twice]


def _total(refs: pa.Table) -> int | None:
    counts = refs["num_images"]
    return None if counts.null_count else int(pc.sum(counts).as_py() or 0)
