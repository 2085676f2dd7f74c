"""Files that no plan explains, and temporary files; the one place that removes files of others."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.table.audit.findings import Findings
from pipeline.table.plan import Plan
from pipeline.table.schema import Table, sequence_of

#: How this project names the files of units, and their plans' manifests.
_UNIT_FILE = re.compile(r"(?P<plan>[0-9]{6,}-[0-9a-f]{12})-(?P<unit>[0-9]{6,})\.parquet")
_MANIFEST = re.compile(r"(?P<plan>[0-9]{6,}-[0-9a-f]{12})\.json")
#: How `pipeline.storage.local` names what it is about to give its name to.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")

#: Folders of what the plans explain.
FOLDERS = ("manifests", "data", "rejects", "plans")
#: The folder of the quantised network, which no plan knows of: only what killed writers left in it is looked for.
_NETWORK = "network"


@dataclass(slots=True)
class Leftovers:
    """Files that are not the table's.

    Args:
        orphans: Files in the table's folders that no plan explains, by their URIs; each with the time it was written.
        foreign: Files there whose names are not of this project's making.
        temporary: What killed writers left, and what writers are at this moment about to name; with the time.
        removed: What was removed of all these.
        kept: What was not, and why.
    """

    orphans: dict[str, float] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    temporary: dict[str, float] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Names:
    """The names of a table's files, hidden ones too, with the times when they were written.

    Args:
        top: Beside table.json.
        folders: By the folder.
    """

    top: Mapping[str, float]
    folders: Mapping[str, Mapping[str, float]]

    def visible(self, folder: str) -> list[str]:
        """Return the names in a folder that don't begin with a dot, in order."""
        return sorted(name for name in self.folders[folder] if not name.startswith("."))


def list_names(table: Table) -> Names:
    """List a table's folders, in an order in which runs at work can't make one contradict another.

    A manifest names files that are there, a data file has its rejects file beside it, and its plan was there before
    both; so plans are to be read after this.
    """
    folders = {folder: table.store.written_at(f"{table.uri}/{folder}") for folder in (*FOLDERS, _NETWORK)}
    return Names(table.store.written_at(table.uri), folders)


def find_leftovers(
    table: Table, names: Names, plans: Mapping[int, Plan | None], without_plans: bool, findings: Findings
) -> tuple[Leftovers, set[str]]:
    """Tell files that the plans explain from others.

    Args:
        table: Where they are.
        names: What there is.
        plans: By their numbers; None for one that is damaged.
        without_plans: Whether the table is one that has none, as predictions of another table have.
        findings: Where missing plans go.

    Returns:
        What isn't explained, and the names of the units whose plan is missing or damaged: nobody knows about those.
    """
    left, unknown, missing = Leftovers(), set(), dict[int, str]()
    for folder, form in (("data", _UNIT_FILE), ("rejects", _UNIT_FILE), ("manifests", _MANIFEST)):
        for name in names.visible(folder):
            uri, match = f"{table.uri}/{folder}/{name}", form.fullmatch(name)
            if match is None:
                left.foreign.append(uri)
                continue
            sequence, unit = sequence_of(name), int(match.groupdict().get("unit", -1))
            plan = plans.get(sequence)
            if plan is None:
                unknown.add(name.partition(".")[0])
                if sequence not in plans:
                    missing.setdefault(sequence, f"{folder}/{name}")
            elif plan.name != match["plan"] or unit >= plan.num_units:
                left.orphans[uri] = names.folders[folder][name]
    for sequence in range(max(plans, default=-1) + 1):
        if sequence not in plans:
            missing.setdefault(sequence, "")
    if without_plans:
        missing.clear()
    for sequence, file in sorted(missing.items()):
        reason = f"{file} is of it" if file else "there are later ones"
        message = f"Expected plan {sequence}, since {reason}; it is missing. Restore it: what it promised isn't known."
        findings.add("plans", table.plan_uri(sequence), message)
    folders = ((f"{table.uri}/{folder}", times) for folder, times in names.folders.items())
    for place, times in ((table.uri, names.top), *folders):
        left.temporary.update({f"{place}/{name}": at for name, at in times.items() if _TEMPORARY.fullmatch(name)})
    return left, unknown


def clean(
    table: Table, left: Leftovers, grace_s: float, is_copied: Callable[[str], bool], now: float | None = None
) -> None:
    """Remove orphans and temporary files that were written longer ago than a time of grace.

    A temporary file may be that of a writer at work, and clocks differ. What has been lying around for longer than any
    writer takes is nobody's; if its writer was merely asleep, that one's write fails, and its unit stays pending.

    Args:
        table: Where they are.
        left: What is not the table's; filled in with what became of it.
        grace_s: Time of grace (seconds).
        is_copied: Whether each image that a data file has rows of has a row or reject in a committed unit, too.
        now: The time (seconds since the epoch); None for this machine's.
    """
    now = time.time() if now is None else now
    for uri, written in {**left.orphans, **left.temporary}.items():
        if now - written <= grace_s:
            left.kept[uri] = f"It was written less than {grace_s:g} s ago."
        elif uri in left.orphans and uri.startswith(f"{table.uri}/data/") and not is_copied(uri):
            left.kept[uri] = "It has rows of images that no committed unit has, or can't be read. Look, then remove it."
        else:
            try:
                table.store.remove(uri)
                left.removed.append(uri)
            except PermissionError as error:
                left.kept[uri] = f"It may not be removed: {error}"
