"""Compare what committed units hold with what they are to hold, and count what has become of every image."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.table.audit.findings import Findings
from pipeline.table.audit.holders import HAS_LEFT, MAY_LEAVE, NOBODY, STAYS, Container, Holders
from pipeline.table.ledger import Ledger
from pipeline.table.plan import unit_refs
from pipeline.table.read import read_file
from pipeline.table.schema import Table


@dataclass(slots=True)
class Held:
    """What the files of one committed unit hold.

    Args:
        rows: Rows of its data file.
        rejects: Rows of its rejects file.
        reused: Rows with a copied embedding.
        is_whole: Whether both files are there and can be read.
    """

    rows: int = 0
    rejects: int = 0
    reused: int = 0
    is_whole: bool = True


@dataclass(slots=True)
class Account:
    """The accounting of a whole table.

    Args:
        ledger: Of all that the plans promise by now.
        leaving: Rows that are still there, though a pending unit or a plan that takes images back is to take them out.
        taken_back: How many of them are of images that are promised no more.
    """

    ledger: Ledger = field(default_factory=lambda: Ledger(0, 0, 0, 0))
    leaving: int = 0
    taken_back: int = 0


def settle(table: Table, holders: Holders, held: dict[int, Held], findings: Findings) -> Account:
    """Note what committed units lack or have too much, and count.

    Args:
        table: The table.
        holders: What its plans say, the latest ones included, and the images that were found.
        held: What was found, by the units' ordinals; a unit is in here if it is committed.
        findings: Where breaches go.
    """
    images = holders.images
    is_there, unit = images["file"] >= 0, images["file"] // 2
    known = np.array([plan is not None for plan, _ in holders.units] + [False])  # the last: of no unit
    of_images = np.array([plan is not None and not plan.containers for plan, _ in holders.units] + [False])
    whole = np.array([ordinal in held and held[ordinal].is_whole for ordinal in range(len(holders.units))] + [False])
    wrong = np.where(images["planned"], (unit != images["holder"]) | (images["leaves"] == HAS_LEFT), of_images[unit])
    _note_wrong(table, holders, np.flatnonzero(is_there & wrong & known[unit]), findings)
    stays = (images["holder"] >= 0) & (images["leaves"] == STAYS)
    _note_missing(table, holders, np.flatnonzero(stays & ~is_there & whole[images["holder"]]), findings)

    promised, right = images["promised"], is_there & (unit == images["holder"])
    is_row = images["file"] % 2 == 0
    leaving = right & images["planned"] & (images["leaves"] == MAY_LEAVE)
    counts = np.array(
        [
            np.count_nonzero(promised),
            np.count_nonzero(promised & stays & right & is_row),
            np.count_nonzero(promised & stays & right & ~is_row),
            np.count_nonzero(promised & ~stays),
            np.count_nonzero(leaving),
            np.count_nonzero(leaving & ~promised),
        ]
    )
    counts += _settle_containers(table, holders, held, findings)
    reused = sum(each.reused for each in held.values())
    planned, embedded, rejected, pending, leaves, taken_back = counts.tolist()
    return Account(Ledger(planned, embedded, rejected, pending, min(reused, embedded)), leaves, taken_back)


def _note_wrong(table: Table, holders: Holders, places: NDArray[np.int64], findings: Findings) -> None:
    """Note rows of images that their unit isn't to hold, file by file."""
    files, counts = np.unique(holders.images["file"][places], return_counts=True)
    for file, count in zip(files.tolist(), counts.tolist(), strict=True):
        uri = _file_uri(table, holders, file)
        if findings.has_enough("ledger"):
            findings.add("ledger", uri, f"{count} rows are of images that this unit is not to hold.")
            continue
        uris = read_file(table, uri, ["uri"])["uri"]
        found = holders.find(uris)
        row = np.flatnonzero(np.isin(found, places[holders.images["file"][places] == file]))
        if not len(row):
            continue  # taken out by another run since the file was read
        image = holders.images[found[row[0]]]
        if not image["planned"] or image["holder"] == NOBODY:
            reason = "which no plan promises to this unit"
        elif image["holder"] == file // 2:
            reason = "which a plan has taken back"
        else:
            reason = f"which unit {holders.units[image['holder']][1].name} is to hold"
        findings.add("ledger", uri, f"{count} rows are of images {reason}; the first: {uris[row[0]]}.")


def _note_missing(table: Table, holders: Holders, places: NDArray[np.int64], findings: Findings) -> None:
    """Note images that have neither row nor reject in the unit that is to hold them, unit by unit."""
    units, counts = np.unique(holders.images["holder"][places], return_counts=True)
    for ordinal, count in zip(units.tolist(), counts.tolist(), strict=True):
        unit = holders.units[ordinal][1]
        if findings.has_enough("ledger"):
            findings.add("ledger", table.data_uri(unit.name), f"{count} images have neither a row nor a reject.")
            continue
        uris = unit_refs(table, unit)["uri"]
        row = np.flatnonzero(np.isin(holders.find(uris), places[holders.images["holder"][places] == ordinal]))[0]
        findings.add(
            "ledger",
            table.data_uri(unit.name),
            f"{count} images that this committed unit is to hold have neither a row in it nor a reject; the first: "
            f"{uris[row]}.",
        )


def _file_uri(table: Table, holders: Holders, file: int) -> str:
    name = holders.units[file // 2][1].name
    return table.rejects_uri(name) if file % 2 else table.data_uri(name)


def _settle_containers(table: Table, holders: Holders, held: dict[int, Held], findings: Findings) -> NDArray[np.int64]:
    """Compare the numbers of rows, since plans don't name the images of a container; and count as `settle` does."""
    counts = np.zeros(6, np.int64)
    now: dict[int, Container] = {}
    for container in holders.containers.values():
        if container.holder != NOBODY:
            now[container.holder] = container
        if container.promised and (container.holder == NOBODY or container.leaves != STAYS):
            images = 1 if container.num_images is None else container.num_images
            counts += (images, 0, 0, images, 0, 0)
    for ordinal, (plan, unit) in enumerate(holders.units):
        if plan is None or not plan.containers or ordinal not in held:
            continue
        found, of_one = held[ordinal], now.get(ordinal)
        total = found.rows + found.rejects
        if of_one is None or of_one.leaves == HAS_LEFT:
            expected: int | None = 0
        elif of_one.leaves == MAY_LEAVE:
            counts += (0, 0, 0, 0, total, 0 if of_one.promised else total)
            continue
        else:
            expected = of_one.num_images
            images = total if expected is None else expected
            counts += (images, found.rows, found.rejects, 0, 0, 0)
        if expected is not None and total != expected and found.is_whole:
            reason = "" if expected else " (a later plan has replaced it or taken it back)"
            findings.add(
                "ledger",
                table.data_uri(unit.name),
                f"Expected {expected} images of a container in this committed unit{reason}, found {found.rows} rows "
                f"and {found.rejects} rejects.",
            )
    return counts
