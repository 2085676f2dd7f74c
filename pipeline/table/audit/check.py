"""Check a whole table: each file is read once, a few at a time; of each image 35 to 90 bytes are in memory."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import TableError
from pipeline.table.audit.files import Content, Part, examine
from pipeline.table.audit.findings import Findings
from pipeline.table.audit.holders import NOBODY, Holders
from pipeline.table.audit.ledger import Account, Held, settle
from pipeline.table.audit.leftovers import FOLDERS, Leftovers, Names, clean, find_leftovers, list_names
from pipeline.table.audit.manifests import Manifests, check_manifests, read_manifests
from pipeline.table.audit.network import check_network
from pipeline.table.audit.plans import load_plan, read_plans
from pipeline.table.info import TableInfo, read_info
from pipeline.table.ledger import Ledger
from pipeline.table.plan import Plan, Unit
from pipeline.table.read import read_file
from pipeline.table.schema import Table

logger = logging.getLogger(__name__)

#: Files that are read ahead at most, and their length: the more, the shorter they are.
_FILES_AHEAD, _BYTES_AHEAD = 8, 256 * 2**20
_LOG_EVERY_S = 10.0


@dataclass(slots=True)
class Audit:
    """What was found.

    Args:
        findings: What is wrong.
        info: What the table says of itself; None where that can't be read, and so nothing else was looked at.
        account: What has become of every image; None where plans are missing or damaged.
        committed: Committed units that can be read, with their plans and how many rows each has.
        num_plans: How many plans there are.
        num_files: Data and rejects files that were read.
        num_bytes: Their length.
        unfinished: Names of complete plans that no manifest names all files of, yet.
        left: Files that are not the table's.
    """

    findings: Findings = field(default_factory=Findings)
    info: TableInfo | None = None
    account: Account | None = None
    committed: list[tuple[Plan, Unit, int]] = field(default_factory=list)
    num_plans: int = 0
    num_files: int = 0
    num_bytes: int = 0
    unfinished: list[str] = field(default_factory=list)
    left: Leftovers = field(default_factory=Leftovers)


def audit(table: Table, remove_after_s: float | None = None) -> Audit:
    """Check a table against its plans, its manifests and its contract. It may be in use meanwhile.

    Args:
        table: The table.
        remove_after_s: Remove files that are not the table's and were written longer ago than this (seconds); None to
            leave them where they are.

    Raises:
        TableError: There is no table.
        OSError: It can't be read now.
    """
    found = Audit()
    names = list_names(table)
    found.info = _read_info(table, names, found.findings)
    if found.info is not None:
        _Audit(table, names, found, found.info).run(remove_after_s)
    return found


def _read_info(table: Table, names: Names, findings: Findings) -> TableInfo | None:
    try:
        info = read_info(table)
        if info.kind not in ("embeddings", "predictions") or (info.kind == "embeddings") != (info.dtype is not None):
            raise TableError(
                f"{table.info_uri} says kind {info.kind!r} and dtype {info.dtype!r}: they don't go together."
            )
    except (TableError, AttributeError, TypeError, ValueError) as error:
        problem = str(error) if isinstance(error, TableError) else f"It is damaged ({error}): restore it."
        if not any(names.visible(folder) for folder in FOLDERS):
            raise TableError(problem) from None
        findings.add("table", table.info_uri, f"{problem} Nothing else can be checked without it.")
        return None
    return info


class _Audit:
    """A check of one table, while it goes on."""

    def __init__(self, table: Table, names: Names, found: Audit, info: TableInfo) -> None:
        self._table, self._names, self._found, self._info = table, names, found, info
        self._findings = found.findings
        self._holders = Holders()
        self._held: dict[int, Held] = {}
        self._data = {name.removesuffix(".parquet") for name in names.visible("data")}
        self._rejects = {name.removesuffix(".parquet") for name in names.visible("rejects")}

    def run(self, remove_after_s: float | None) -> None:
        """Check everything, in the order that `pipeline.table.audit.holders` explains."""
        manifests = read_manifests(self._table, self._names.visible("manifests"))
        plans = read_plans(self._table, 0, self._findings)
        others = (*self._rejects, *self._names.visible("manifests"))
        without_plans = self._info.kind == "predictions" and not plans and not others
        before = len(self._findings)
        left, unknown = find_leftovers(self._table, self._names, plans, without_plans, self._findings)
        is_sound = len(self._findings) == before and None not in plans.values()
        is_sound &= self._load(plans)
        for name in sorted(unknown & self._data):
            self._holders.add_unit(None, Unit(name.rpartition("-")[0], int(name.rpartition("-")[2]), None))
        read = self._read(list(self._parts()), manifests)
        is_sound &= self._load(read_plans(self._table, max(plans, default=-1) + 1, self._findings))
        if without_plans:
            rows = sum(each.rows for each in self._held.values())
            self._found.account = Account(Ledger(rows, rows, 0, 0))
        elif is_sound:
            self._found.account = settle(self._table, self._holders, self._held, self._findings)
        known = [plan for plan in plans.values() if plan is not None]
        self._found.unfinished = check_manifests(
            self._table, self._info, manifests, known, self._data, read, self._findings
        )
        check_network(self._table, self._info, self._findings)
        if remove_after_s is not None:
            clean(self._table, left, remove_after_s, self._is_copied)
        self._note_leftovers(left)
        self._found.num_plans, self._found.left = len(plans), left

    def _load(self, plans: dict[int, Plan | None]) -> bool:
        """Take plans in; return whether all of them could be."""
        done = {name.removesuffix(".json") for name in self._names.visible("manifests")}
        loaded = [
            load_plan(self._table, plan, self._holders, self._data, plan.name in done, self._findings)
            for plan in plans.values()
            if plan is not None
        ]
        return all(loaded) and None not in plans.values()

    def _parts(self) -> Iterator[Part]:
        """Yield the files of units, in the order of plans; rejects files of pending units, too."""
        for ordinal, (plan, unit) in enumerate(self._holders.units):
            if unit.name in self._data:
                self._held[ordinal] = Held(is_whole=plan is None or unit.name in self._rejects)
                yield Part("data", unit.name, plan, unit.number)
                if plan is not None and unit.name not in self._rejects:
                    uri = self._table.rejects_uri(unit.name)
                    reason = "Expected a rejects file, since there is a data file of that name; found none. Restore it."
                    self._findings.add("ledger", uri, reason)
            if unit.name in self._rejects:
                yield Part("rejects", unit.name, plan, unit.number)

    def _read(self, parts: list[Part], manifests: Manifests) -> set[str]:
        """Read files, and note what is in them; return their paths."""
        logged_at = time.monotonic()
        for part, content in self._examined(parts):
            uri, ordinal = f"{self._table.uri}/{part.path}", self._holders.ordinals[part.name]
            held = self._held.get(ordinal)
            if content.num_bytes is None and held is None:
                continue  # rejects of a pending unit, which may be removed by hand
            for problem in content.problems:
                self._findings.add("files", uri, problem)
            manifests.compare(part.path, content)
            self._found.num_files += 1
            self._found.num_bytes += content.num_bytes or 0
            if held is not None:
                self._note(part, content, ordinal, held)
            if time.monotonic() - logged_at > _LOG_EVERY_S:
                logged_at = time.monotonic()
                logger.info("Verified %d of %d files.", self._found.num_files, len(parts))
        return {part.path for part in parts}

    def _examined(self, parts: Iterable[Part]) -> Iterator[tuple[Part, Content]]:
        waiting: deque[tuple[Part, Future[Content]]] = deque()
        longest = 0
        with ThreadPoolExecutor(_FILES_AHEAD) as pool:
            for part in parts:
                waiting.append((part, pool.submit(examine, self._table, part, self._info)))
                while len(waiting) > (min(_FILES_AHEAD, _BYTES_AHEAD // longest) if longest else 1):
                    first, future = waiting.popleft()
                    content = future.result()
                    longest = max(longest, content.num_bytes or 0)
                    yield first, content
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()

    def _note(self, part: Part, content: Content, ordinal: int, held: Held) -> None:
        """Note the rows of a committed unit's file."""
        if content.uris is None:
            held.is_whole = False
            return
        plan, unit = self._holders.units[ordinal]
        if part.folder == "data":
            held.rows, held.reused = content.num_rows, content.reused
            if plan is not None and not content.problems:
                self._found.committed.append((plan, unit, content.num_rows))
        else:
            held.rejects = content.num_rows
        twice = self._holders.note_found(content.uris, ordinal, part.folder == "rejects")
        if twice:
            row, file = twice[0]
            other = f"{('data', 'rejects')[file % 2]}/{self._holders.units[file // 2][1].name}.parquet"
            message = f"{len(twice)} of its rows are of images that have another row or reject, too; the first: "
            where = "twice in this file" if other == part.path else f"also in {other}"
            self._findings.add(
                "uniqueness", f"{self._table.uri}/{part.path}", f"{message}{content.uris[row].as_py()}, {where}."
            )

    def _is_copied(self, uri: str) -> bool:
        try:
            uris = read_file(self._table, uri, ["uri"])["uri"]
        except (TableError, KeyError, FileNotFoundError):
            return False
        places = self._holders.find(uris)
        return bool(np.all((places >= 0) & (self._holders.images["file"][places] != NOBODY)))

    def _note_leftovers(self, left: Leftovers) -> None:
        """Note what lies in data/, where readers would take it for a committed unit."""
        for uri in sorted({*left.orphans, *left.foreign} - set(left.removed)):
            if uri.startswith(f"{self._table.uri}/data/"):
                writer = "this project didn't write it" if uri in left.foreign else "no plan explains it"
                advice = left.kept.get(uri) or ("Remove it." if uri in left.foreign else "Remove it, or use --clean.")
                self._findings.add("orphans", uri, f"Expected files of committed units only; {writer}. {advice}")
