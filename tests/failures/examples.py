"""Examples of every failure in the table: an exception for each mark of each row."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.errors import ImageReject
from pipeline.failures import FAILURES, Failure, Seam


class Answer(Exception):
    """What an HTTP client raises for an answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status}, url='https://user:geheim@host/x?sig=geheim'")
        self.status = status


@dataclass(frozen=True)
class Case:
    """A failure and an exception that is of its kind."""

    failure: Failure
    error: Exception

    def __str__(self) -> str:
        return f"{self.failure.what[:40]}-{type(self.error).__name__}-{str(self.error)[:12]}"


def foreign(name: str) -> Exception:
    """Return an exception of a type that has a full name, or one that begins so."""
    module, _, kind = name.rpartition(".")
    made: Exception = type(kind or "Anything", (Exception,), {"__module__": module})("somewhere")
    return made


def certificate_error(number: int) -> Exception:
    """Return what is raised for a bad certificate, by OpenSSL's number of what is bad."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = number, "it is not good"
    return error


def examples(failure: Failure) -> Iterator[Exception]:
    """Yield an exception for each of a row's marks; none for types that are never raised themselves."""
    if failure.code is not None:
        yield ImageReject("read", failure.code, "a reject")
    yield from (OSError(number, "trouble") for number in failure.errnos)
    yield from (kind("trouble") for kind in failure.errors if issubclass(kind, Exception))
    yield from map(foreign, failure.names)
    yield from map(certificate_error, failure.certificate)
    for each in failure.statuses:
        yield from map(Answer, (each[0], each[-1]) if isinstance(each, range) else (each,))
    if failure is FAILURES[-1]:
        yield RuntimeError("trouble")


CASES = [Case(failure, error) for failure in FAILURES for error in examples(failure)]


def of(*seams: Seam, rejects: bool = True) -> Any:
    """Run a test with each case of some seams.

    Args:
        seams: Who notices.
        rejects: Whether to take those too that come as `ImageReject`.
    """
    cases = [case for case in CASES if case.failure.seam in seams]
    cases = [case for case in cases if rejects or not isinstance(case.error, ImageReject)]
    return pytest.mark.parametrize("case", cases, ids=str)
