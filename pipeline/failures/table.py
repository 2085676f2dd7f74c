"""What can go wrong and what becomes of it: the one table that every store, source, stage and job goes by.

A permanent failure is a reject: the same bytes at the same place must fail again tomorrow. Whatever may pass is never
one, since a reject is settled for good, while a unit that stays pending costs no more than another run.

Whoever notices a failure asks `find` (for an exception) or `of_status` (for the status of a web server's answer). The
first row that fits counts, so rows for one seam stand above those for anybody.
"""

from __future__ import annotations

import errno
import socket

from pipeline.errors import ConfigError, ImageReject, RejectCode, TooManyRejects, TransientError, VerificationFailed
from pipeline.failures.row import Failure, Seam, Verdict

_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "adlfs", "azure", "fsspec", "asyncio")
_NO_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

FAILURES: tuple[Failure, ...] = (
    # Permanent, by what an image is, or by what stands where one should be.
    Failure("the file has 0 bytes", Verdict.REJECT, code=RejectCode.EMPTY),
    Failure("a row or a sample without an image", Verdict.REJECT, code=RejectCode.MISSING),
    Failure(
        "listed, but not there any more, while the place that held it is",
        Verdict.REJECT,
        seam=Seam.SOURCE,
        code=RejectCode.MISSING,
        errors=(FileNotFoundError, IsADirectoryError, NotADirectoryError),
    ),
    Failure(
        "a web server says that there is no such image",
        Verdict.REJECT,
        seam=Seam.WEB,
        code=RejectCode.MISSING,
        statuses=(404, 410),
    ),
    Failure(
        "there is no such host, while others are found",
        Verdict.REJECT,
        seam=Seam.WEB,
        code=RejectCode.MISSING,
        errnos=_NO_HOST,
    ),
    Failure("named a second time", Verdict.REJECT, code=RejectCode.DUPLICATE),
    Failure("a member of a tar that leads out of it", Verdict.REJECT, code=RejectCode.UNSAFE),
    Failure("an address that may not be read", Verdict.REJECT, code=RejectCode.REFUSED),
    Failure(
        "a certificate that has expired, is signed by itself, or is for another host",
        Verdict.REJECT,
        seam=Seam.WEB,
        code=RejectCode.REFUSED,
        certificate=(10, 18, 62),  # others may be this machine's lack of a root certificate
    ),
    Failure("bytes of a format that is not taken", Verdict.REJECT, code=RejectCode.UNSUPPORTED),
    Failure("bytes that end too early", Verdict.REJECT, code=RejectCode.TRUNCATED),
    Failure("damaged bytes", Verdict.REJECT, code=RejectCode.UNDECODABLE),
    Failure("more pixels or bytes than allowed", Verdict.REJECT, code=RejectCode.TOO_LARGE),
    Failure("an image that ends even a process of its own", Verdict.REJECT, code=RejectCode.CRASHED),
    Failure("an image that takes too long even alone", Verdict.REJECT, code=RejectCode.TIMED_OUT),
    Failure("an embedding that is no number", Verdict.REJECT, code=RejectCode.NON_FINITE),
    # What ends a job.
    Failure("more rejects than the run allows", Verdict.REJECT, seam=Seam.JOB, errors=(TooManyRejects,)),
    Failure("a table that is not as promised", Verdict.BREACH, seam=Seam.JOB, errors=(VerificationFailed,)),
    Failure(
        "something else is where a folder or file should be, or nobody may read or write there",
        Verdict.FATAL,
        seam=Seam.JOB,
        errors=(FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError),
    ),
    Failure(
        "there are no such weights", Verdict.FATAL, seam=Seam.WEIGHTS, statuses=(404, 410), errors=(FileNotFoundError,)
    ),
    Failure("what was asked for can't be", Verdict.FATAL, errors=(ConfigError,)),
    # May pass, but not within seconds.
    Failure("a part of the pipeline gives up for now", Verdict.PENDING, errors=(TransientError,)),
    Failure(
        "access is refused: credentials that are wrong, missing or out of date, or too few rights",
        Verdict.PENDING,
        errnos=(errno.EACCES, errno.EPERM),
        statuses=(401, 402, 403, 407),
        errors=(PermissionError,),
        names=(
            "botocore.exceptions.NoCredentialsError",
            "botocore.exceptions.PartialCredentialsError",
            "botocore.exceptions.ProfileNotFound",
            "botocore.exceptions.TokenRetrievalError",
            "google.auth.exceptions.DefaultCredentialsError",
            "azure.core.exceptions.ClientAuthenticationError",
        ),
        advice="Give this user, or the nodes' role, access there, or renew the credentials",
    ),
    Failure(
        "no space is left",
        Verdict.PENDING,
        errnos=(errno.ENOSPC, errno.EDQUOT),
        names=("ray.exceptions.OutOfDiskError",),
        advice="Free space there, or raise the quota",
    ),
    Failure(
        "the place can only be read",
        Verdict.PENDING,
        errnos=(errno.EROFS,),
        advice="Mount it for writing, or choose another place",
    ),
    Failure(
        "what the run itself needs is gone: a plan, a mount",
        Verdict.PENDING,
        errnos=(errno.ENOENT,),
        statuses=(404, 410),
        errors=(FileNotFoundError,),
    ),
    Failure(
        "the place can't do what is asked of it",
        Verdict.PENDING,
        errnos=(errno.ENAMETOOLONG, errno.EINVAL, errno.ENOSYS),
        errors=(FileExistsError, IsADirectoryError, NotADirectoryError),
    ),
    Failure(
        "there is no memory left",
        Verdict.PENDING,
        errors=(MemoryError,),
        advice="Use a smaller --unit-size or --batch-size, or larger machines",
    ),
    # May pass soon.
    Failure(
        "a store or a server asks to slow down",
        Verdict.RETRY,
        errnos=(errno.EBUSY,),
        statuses=(429, 503),
        slow_down=True,
    ),
    Failure(
        "a store, a server or a disk is in trouble, or has not got it ready yet",
        Verdict.RETRY,
        errnos=(errno.EIO,),
        statuses=(202, 408, 409, 421, 423, 424, 425, range(500, 1000)),
    ),
    Failure(
        "an answer that is no image and that trying again won't change",
        Verdict.REJECT,
        seam=Seam.WEB,
        code=RejectCode.REFUSED,
        statuses=(range(100, 200), range(300, 500)),
    ),
    Failure(
        "a time-out, a connection that breaks, a stale mount, too many open files: any other I/O error",
        Verdict.RETRY,
        errors=(OSError,),
    ),
    Failure("the client of an object store gives up", Verdict.RETRY, names=tuple(f"{name}." for name in _CLIENTS)),
    Failure(
        "Ray has lost a process, a node or an object, and its own retries didn't help",
        Verdict.PENDING,
        names=("ray.exceptions.", "ray.data.exceptions."),
    ),
    Failure("nobody knows: an engine's own error, a fault of the program", Verdict.PENDING, errors=(BaseException,)),
)


def find(error: BaseException, seam: Seam = Seam.ANYBODY) -> Failure:
    """Return the row of an exception."""
    if isinstance(error, ImageReject):
        return next(failure for failure in FAILURES if failure.code is error.code)
    return next(failure for failure in FAILURES if failure.seam in (seam, Seam.ANYBODY) and failure.is_that_of(error))


def of_status(status: int, seam: Seam = Seam.WEB) -> Failure | None:
    """Return the row of an answer by its HTTP status; None where the answer is what was asked for."""
    rows = (failure for failure in FAILURES if failure.seam in (seam, Seam.ANYBODY))
    return next((failure for failure in rows if failure.has_status(status)), None)
