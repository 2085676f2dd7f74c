"""What is found wrong with a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Check = Literal["table", "plans", "ledger", "uniqueness", "files", "manifests", "network", "orphans", "sample"]

#: Breaches of one check that are kept; more of the same kind tell nothing new.
_KEPT_OF_EACH = 100


@dataclass(frozen=True, slots=True)
class Breach:
    """Something that must not be.

    Args:
        check: Which promise of the format it breaks.
        where: The file.
        message: What was expected, and what was found.
    """

    check: Check
    where: str
    message: str


@dataclass(slots=True)
class Findings:
    """All breaches of a table: each is counted, the first ones of each check are kept.

    Args:
        counts: How many there are of each check.
        kept: The first ones of each, in the order in which they were found.
    """

    counts: Counter[str] = field(default_factory=Counter)
    kept: list[Breach] = field(default_factory=list)

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, check: Check, where: str, message: str) -> None:
        """Take a breach in."""
        self.counts[check] += 1
        if self.counts[check] <= _KEPT_OF_EACH:
            self.kept.append(Breach(check, where, message))

    def has_enough(self, check: Check) -> bool:
        """Return whether further breaches of a check are only counted."""
        return self.counts[check] >= _KEPT_OF_EACH

    def to_json(self) -> list[dict[str, Any]]:
        """Return what was kept as plain JSON values."""
        return [asdict(breach) for breach in self.kept]
