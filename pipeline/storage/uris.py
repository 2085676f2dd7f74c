"""The spelling of URIs: local and remote, and fit to be shown.

A local file's URI is its plain absolute path, so that any tool opens it as it stands. A path that is no valid UTF-8
(POSIX allows any bytes) is written as a percent-encoded ``file://`` URI instead, since Parquet strings are UTF-8. The
URI of an object in a bucket is its key as it is, behind the scheme and the bucket: ``s3://bucket/a b?c#d.jpg``.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit, urlunsplit

from pipeline.errors import ConfigError

#: Other spellings of the schemes, and the one that is used here.
_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
#: Object stores, by the scheme of their URIs.
OBJECT_STORES = ("s3", "gs", "az")
#: Schemes that weights may be read from, besides local paths.
REMOTE_SCHEMES = (*OBJECT_STORES, "http", "https")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
# Up to white space: rather too much of a text than the tail of a secret.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


def scheme(uri: str) -> str:
    """Return the URI's scheme in lower case and its usual spelling, ``file`` for a plain path."""
    head, separator, _ = uri.partition("://")
    if not separator or not _SCHEME.fullmatch(head):
        return "file"
    return _ALIASES.get(head.lower(), head.lower())


def redact(uri: str) -> str:
    """Return ``uri`` without user info, and a web address also without query and fragment: fit for logs and artefacts.

    An object's key may hold ``?`` and ``#``, which mean nothing there, so they stay.
    """
    kind = scheme(uri)
    if kind == "file":
        return uri
    if kind in OBJECT_STORES:
        bucket, slash, key = uri.partition("://")[2].partition("/")
        return f"{kind}://{bucket.rpartition('@')[2]}{slash}{_without_signature(key)}"
    try:
        parts = urlsplit(uri)
    except ValueError:  # brackets or odd characters where the host should be
        return f"{kind}://…"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _without_signature(key: str) -> str:
    """Cut off a query that signs a request; nobody names an object so."""
    head, mark, query = key.partition("?")
    return head if mark and re.search(r"(?i)(signature|credential|token|sig|sas)[^=&]*=", query) else key


def scrub(text: str) -> str:
    """Return a text with every URI in it redacted: libraries put whole URLs into their error messages."""
    return _URI.sub(lambda match: redact(match.group()), text)


def has_secret(uri: str) -> bool:
    """Return whether a URI carries user info or the query of a web address, where secrets are."""
    return scheme(uri) != "file" and redact(uri) != _canonical(uri)


def is_signed(uri: str) -> bool:
    """Return whether a URI carries user info or a signature; a web address may well have another query."""
    kind, rest = scheme(uri), uri.partition("://")[2]
    if kind == "file":
        return False
    return "@" in re.split(r"[/?#]", rest, maxsplit=1)[0] or _without_signature(rest) != rest


def _canonical(uri: str) -> str:
    head, separator, rest = uri.partition("://")
    return f"{_ALIASES.get(head.lower(), head.lower())}{separator}{rest}"


def local_uri(path: str) -> str:
    """Return the URI of a local path."""
    path = os.path.abspath(os.path.expanduser(path))
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def local_path(uri: str) -> str:
    """Return the path of a local URI.

    Raises:
        ConfigError: The URI is not local.
    """
    if uri[:1] == "/" and "//" not in uri and "/." not in uri and uri[-1] != "/":
        return uri  # as it is for nearly every image
    if scheme(uri) != "file":
        raise ConfigError(f"Expected a local path, got {redact(uri)}.")
    if uri.lower().startswith("file://"):
        return os.fsdecode(unquote_to_bytes(uri[len("file://") :]))
    return os.path.abspath(os.path.expanduser(uri))


def absolute(uri: str) -> str:
    """Return the one spelling of a place: an absolute path, or a remote URI without a slash at its end.

    Raises:
        ConfigError: A remote URI has user info or a signature; credentials belong into the environment.
    """
    if scheme(uri) == "file":
        return local_path(uri)
    if has_secret(uri):
        raise ConfigError(
            f"Expected a URI without credentials, got some in {redact(uri)}. "
            "Put credentials into the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, …) or use the machine's role."
        )
    return _canonical(uri).rstrip("/")


def join(folder: str, name: str) -> str:
    """Return the URI of what is called ``name`` below a folder."""
    return f"{folder.rstrip('/')}/{name}"


def base_name(uri: str) -> str:
    """Return the last part of a URI."""
    return uri.rstrip("/").rpartition("/")[2]


def holder(uri: str) -> str:
    """Return what must be there for a file to be missing rather than out of reach: its folder, or its bucket."""
    if scheme(uri) == "file":
        return uri.rpartition("/")[0] or "/"
    return "/".join(uri.split("/", 3)[:3])


def printable(text: str) -> str:
    """Return a name from the file system as valid Unicode, with U+FFFD for bytes that are no UTF-8."""
    return os.fsencode(text).decode("utf-8", "replace")
