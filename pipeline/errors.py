"""Every error that the project raises on purpose.

PipelineError
├── ConfigError            what was asked for can't be: wrong option, missing source, unusable file
│   ├── ContractMismatch   features that don't belong together
│   ├── WeightsError       weights that can't be had, read or trusted
│   └── TableError         a table (or head) that is missing, foreign or damaged
├── TransientError         trouble that may pass: storage, node or process; the work stays pending
│   ├── WeightsUnavailable weights that can't be downloaded now
│   ├── RejectsSettled     a unit's rejects were settled before others came up; caught where it is committed
│   └── RunIncomplete      a run ended with images pending
├── TooManyRejects         all done, but more images were rejected than the run allows
├── VerificationFailed     a table that is not as its plans, manifests and contract say
└── ImageReject            one image that can never give an embedding; caught where the unit is read

A message says what was expected, what was got, where, and what to do next.
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class PipelineError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: What was expected, what was got, where, and what to do.
        record: The run's record as plain JSON values, where the run got as far as having one.
    """

    def __init__(self, message: str, record: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.record = record


class ConfigError(PipelineError):
    """What was asked for can't be done as asked; running it again changes nothing."""


class ContractMismatch(ConfigError):
    """Two sets of features that are not comparable were about to be mixed."""


class WeightsError(ConfigError):
    """Weights are missing, unreadable or don't fit the network."""


class TableError(ConfigError):
    """A table or head is missing, of another format, or damaged."""


class TransientError(PipelineError):
    """Trouble that may pass: the same command run again may succeed."""


class WeightsUnavailable(TransientError):
    """Weights can't be downloaded now: no network, or a server in trouble."""


class RejectsSettled(TransientError):
    """A unit's rejects were settled by an earlier attempt, and more of its images have become rejects since."""


class RunIncomplete(TransientError):
    """A run ended while images were still pending."""


class TooManyRejects(PipelineError):
    """The share of rejected images is above what the run allows."""


class VerificationFailed(PipelineError):
    """A table is not as its plans, its manifests and its contract say."""


class RejectCode(str, Enum):
    """Why an image gave no embedding; each is permanent. Documented in docs/table-format.md."""

    EMPTY = "empty"
    MISSING = "missing"
    DUPLICATE = "duplicate"
    UNSAFE = "unsafe"
    REFUSED = "refused"
    UNSUPPORTED = "unsupported"
    TRUNCATED = "truncated"
    UNDECODABLE = "undecodable"
    TOO_LARGE = "too_large"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    NON_FINITE = "non_finite"


class ImageReject(PipelineError):
    """One image is permanently unusable.

    Args:
        stage: Where it failed: ``read``, ``decode`` or ``embed``.
        code: The reason, for programs.
        message: The reason, for people.
    """

    def __init__(self, stage: str, code: RejectCode, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.code = code
        self.message = message
