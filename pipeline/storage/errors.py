"""What the clients of object stores raise, as `OSError` without secrets."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from pipeline.errors import ConfigError
from pipeline.storage.uris import redact, scrub


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status in a client's error, where it tells."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return int(status) if status else None
    return getattr(error, "status", None) or getattr(error, "code", None)


@contextlib.contextmanager
def as_os_errors(where: str) -> Iterator[None]:
    """Turn what the stores' clients raise into `OSError` without secrets."""
    try:
        yield
    except ConfigError:
        raise
    except OSError as error:
        if type(error) is OSError and (status_of(error) or 0) in (429, 503):
            raise OSError(errno.EBUSY, f"The store asks to slow down: {scrub(str(error))}", redact(where)) from error
        raise
    except Exception as error:
        name = type(error).__name__
        if name in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"):
            raise PermissionError(
                errno.EACCES,
                f"Expected credentials for {redact(where)}: {scrub(str(error))}. Set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY or AWS_PROFILE; for a public bucket use --storage-options '{\"anon\": true}'",
            ) from error
        if not _is_clients(error):
            raise
        raise OSError(errno.EIO, f"{name}: {scrub(str(error))}", redact(where)) from error


def _is_clients(error: Exception) -> bool:
    modules = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure", "adlfs", "fsspec", "asyncio", "s3fs")
    return type(error).__module__.partition(".")[0] in modules
