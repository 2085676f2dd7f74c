"""From a URI and options to the store that holds it."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from pipeline.errors import ConfigError, TransientError
from pipeline.storage.base import StorageOptions, Store
from pipeline.storage.local import LocalStore
from pipeline.storage.remote import RemoteStore
from pipeline.storage.s3 import S3Store
from pipeline.storage.uris import OBJECT_STORES, has_secret, local_path, printable, redact, scheme

#: Parts of option names that carry a secret.
_SECRET_PARTS = ("secret", "passw", "token", "key", "credential", "sas", "connection_string", "authorization", "cookie")
#: Options whose names only look so.
_HARMLESS = ("requester_pays", "sse_kms_key_id")
#: Values of gcsfs's option ``token`` that name a way to get credentials, or to do without.
_TOKEN_KINDS = ("anon", "cloud", "google_default")


def store_for(uri: str, options: StorageOptions | None = None) -> Store:
    """Return the store that holds a URI.

    Args:
        uri: A local path or a URI.
        options: Keyword arguments of the fsspec file system; for remote stores only.

    Raises:
        ConfigError: The scheme is not one that is allowed, or the options hold a secret.
    """
    kind = scheme(uri)
    refuse_secrets(options or {})
    if kind == "file":
        return LocalStore()
    if kind not in OBJECT_STORES:
        raise ConfigError(
            f"Expected a local path, s3://, gs:// or az://, got {redact(uri)}."
            + (" Web addresses can be used in a manifest, with --allow-http." if kind in ("http", "https") else "")
        )
    return S3Store(kind, options or {}) if kind == "s3" else RemoteStore(kind, options or {})


def refuse_secrets(options: StorageOptions) -> None:
    """Refuse storage options that carry credentials, which would show in process lists and in the run's record.

    Raises:
        ConfigError: One does.
    """
    for name, value in options.items():
        if name == "token" and value in _TOKEN_KINDS:
            continue
        lower = name.lower()
        if lower == "auth" or (name not in _HARMLESS and any(part in lower for part in _SECRET_PARTS)):
            raise ConfigError(
                f"Storage option {name!r} would carry a credential. Put it into the environment of the cluster's nodes "
                "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, "
                "AZURE_STORAGE_ACCOUNT_KEY), or use the machine's role."
            )
        if isinstance(value, str) and has_secret(value):
            raise ConfigError(f"Storage option {name!r} would carry a credential in its address. Leave it out there.")
        if isinstance(value, dict):
            refuse_secrets(value)
        if isinstance(value, list | tuple):
            for item in value:
                refuse_secrets({name: item})


def require_folder(uri: str, option: str) -> None:
    """Refuse a local place for output that is no folder and can't become one.

    Raises:
        ConfigError: It, or something above it, is a file.
    """
    if scheme(uri) != "file":
        return
    path = Path(local_path(uri))
    existing = next(place for place in (path, *path.parents) if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"Expected a folder, or a place for one, at {path} ({option}); {existing} is a file.")


def require_place(store: Store, place: str, or_above: bool = False) -> None:
    """Refuse to take files for missing where rather the place that held them is lost.

    A folder with nothing in it is no better than none: it may be a mount point without its mount.

    Args:
        store: What holds it.
        place: A folder or a bucket.
        or_above: Whether a folder may have been deleted; then the nearest one above it is looked at.

    Raises:
        TransientError: It is lost.
        OSError: Nobody can tell now.
    """
    is_local = scheme(place) == "file"
    if is_local:
        place = _nearest_folder(local_path(place)) if or_above else local_path(place)
    try:
        is_there = _holds_something(place) if is_local else store.is_folder(place)
    except PermissionError:
        return  # it may not be listed, so it is there
    if not is_there:
        kind = "folder" if is_local else "bucket"
        raise TransientError(
            f"The {kind} {printable(place)} is gone or empty, so nobody can tell whether its images still exist. Bring "
            "it back (is it mounted?) and run again. If they are gone for good, put any file there."
        )


def _holds_something(folder: str) -> bool:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return any(not entry.name.startswith(".") for entry in entries)
    return False


def _nearest_folder(path: str) -> str:
    while True:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_ISDIR(os.stat(path).st_mode):
                return path
        path = os.path.dirname(path)
