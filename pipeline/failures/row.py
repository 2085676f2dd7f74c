"""One kind of failure: by which marks it is known, and what becomes of it."""

from __future__ import annotations

import ssl
from dataclasses import KW_ONLY, dataclass
from enum import Enum

from pipeline.errors import RejectCode


class Verdict(Enum):
    """What becomes of a failure, and the exit code of a job that ends with it."""

    REJECT = "reject"  # it is permanent: a row in rejects/ (exit code 3 where the run has too many of them)
    RETRY = "retry"  # the same call again, a few times, with back-off; then as PENDING
    PENDING = "pending"  # nothing is settled: the unit stays pending, another run may do it (exit code 1)
    FATAL = "fatal"  # the run ends, since the same command would fail again (exit code 2)
    BREACH = "breach"  # nothing failed but the table itself, which was verified (exit code 4)


class Seam(Enum):
    """Who notices a failure."""

    ANYBODY = "anybody"
    SOURCE = "a source that opens an image or a shard"
    WEB = "the web client that fetches an entry of a manifest"
    WEIGHTS = "the download of weights"
    JOB = "a job, of what has come up to it"


@dataclass(frozen=True, slots=True)
class Failure:
    """One row of the table. A failure is of this kind if it has any of the row's marks.

    Args:
        what: What happened.
        verdict: What becomes of it.
        seam: Who notices.
        code: The code of the rejects.
        errnos: Numbers of an `OSError`; where there are statuses too, the first one is raised for them.
        statuses: HTTP statuses, of an answer or in the error of an object store's client.
        errors: Types of exceptions.
        names: How the full names of types begin that this module doesn't import.
        certificate: OpenSSL's numbers (``X509_V_ERR_*``) of what is wrong with a certificate.
        advice: What the user can do about it.
        slow_down: Whether to wait longer before the next attempt.
    """

    what: str
    verdict: Verdict
    _: KW_ONLY
    seam: Seam = Seam.ANYBODY
    code: RejectCode | None = None
    errnos: tuple[int, ...] = ()
    statuses: tuple[int | range, ...] = ()
    errors: tuple[type[BaseException], ...] = ()
    names: tuple[str, ...] = ()
    certificate: tuple[int, ...] = ()
    advice: str = ""
    slow_down: bool = False

    def has_status(self, status: int | None) -> bool:
        """Return whether an HTTP status is one of this row's."""
        return any(status in each if isinstance(each, range) else status == each for each in self.statuses)

    def is_that_of(self, error: BaseException) -> bool:
        """Return whether an exception has one of this row's marks."""
        if isinstance(error, self.errors) or self.has_status(status_of(error)):
            return True
        if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in self.certificate:
            return True
        if isinstance(error, OSError) and error.errno in self.errnos:
            return True
        full_names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
        return any(full_name.startswith(self.names) for full_name in full_names)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status in a client's error, where it tells."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "status", None) or getattr(error, "code", None)
    return int(status) if isinstance(status, int | str) and str(status).isdecimal() else None
