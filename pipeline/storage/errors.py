"""What the clients of object stores raise, as `OSError` without secrets."""

from __future__ import annotations

import contextlib
import errno
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.failures import Verdict, find, status_of
from pipeline.storage.uris import redact, scheme, scrub

_BAD_REQUEST = 400
#: How a node gets credentials, by the scheme of the store.
_CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE; for a public bucket use "
    "--storage-options '{\"anon\": true}'",
    "gs": 'Set GOOGLE_APPLICATION_CREDENTIALS; for a public bucket use --storage-options \'{"token": "anon"}\'',
    "az": "Set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or use the machine's identity",
}


def explained(error: BaseException, what: str = "") -> str:
    """Return what went wrong in one line that is fit for logs and reports, and what the user can do about it.

    Args:
        error: What was raised.
        what: What couldn't be done, where the error doesn't say that by itself.
    """
    if isinstance(error, PipelineError):
        return str(error)
    kind, text = type(error).__name__, next(iter(scrub(str(error)).strip().splitlines()), "").rstrip(". ")
    if what or not isinstance(error, OSError) or error.errno is None:
        text = f"{kind}: {text}" if text else kind
    advice = find(error).advice
    return (f"{what}: " if what else "") + text + (f". {advice}." if advice else "")


def log_traceback(logger: logging.Logger, what: str) -> None:
    """Log the exception that is being handled as `logging.Logger.exception` does, but without the secrets in it."""
    logger.error("%s\n%s", what, scrub(traceback.format_exc()))


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a file in the errors of writing to it: the system names none, so nobody would know which disk is full."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def as_os_errors(where: str) -> Iterator[None]:
    """Turn what the stores' clients raise into `OSError` without secrets."""
    try:
        yield
    except PipelineError:
        raise
    except OSError as error:
        if error.filename is not None or (status := status_of(error)) is None:
            raise
        reason = scrub(error.strerror or str(error)).rstrip(".")
        if find(error).slow_down:
            raise OSError(errno.EBUSY, f"The store asks to slow down: {reason}", redact(where)) from error
        if isinstance(error, PermissionError):
            raise PermissionError(errno.EACCES, reason, redact(where)) from error
        if status == _BAD_REQUEST and str(error).endswith("Bad Request"):
            reason = "The store gives no reason (400 Bad Request), as S3 does where credentials have expired"
            raise PermissionError(errno.EACCES, reason, redact(where)) from error
        raise
    except Exception as error:
        failure = find(error)
        if not failure.names:
            raise  # no client's
        if failure.verdict is Verdict.PENDING:
            raise PermissionError(
                errno.EACCES,
                f"Expected credentials for {redact(where)}: {scrub(str(error))}. {_CREDENTIALS.get(scheme(where), '')}",
            ) from error
        raise OSError(errno.EIO, f"{type(error).__name__}: {scrub(str(error))}", redact(where)) from error
