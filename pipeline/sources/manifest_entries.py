"""From an entry of a manifest to the URI of its image, or to the verdict that it can never give one.

A verdict stands in the plan where a version would: ``reject:<code>:<message>``.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from pipeline import storage
from pipeline.digests import DigestMap, digests_of, first_of_each
from pipeline.errors import ImageReject, RejectCode
from pipeline.storage import OBJECT_STORES
from pipeline.storage.local import version_of

#: Schemes of web servers.
HTTP_SCHEMES = ("http", "https")
#: Why their addresses are not read.
HTTP_REFUSED = "Web addresses are read with --allow-http only."
#: Local files that are looked up at once, for the sake of network mounts.
CONCURRENT_LOOK_UPS = 16
#: The version of a local file that isn't there when the list is read.
NEVER_THERE = "missing"
_REJECT = "reject:"
# "data:…" holds no address, and "https:/…" is one that was taken for a path. Other names may hold colons.
_NO_PATH = re.compile(r"(?i)(data|blob|file|ftps?|https?|s3[an]?|gcs|gs|az|abfss?):")


def verdict(code: RejectCode, message: str) -> str:
    """Return what stands in place of a version where there can never be an image."""
    return f"{_REJECT}{code.value}:{message}"


def is_verdict(version: str) -> bool:
    """Return whether a version is a verdict."""
    return version.startswith(_REJECT)


def reject_of(version: str) -> ImageReject:
    """Return the reject that a verdict stands for."""
    _, code, message = version.split(":", 2)
    return ImageReject("read", RejectCode(code), message)


class Places:
    """Where entries lead.

    Args:
        root: Where relative ones begin.
        manifest: How the manifest's own URI is shown.
        allow_http: Whether they may lead to web servers.
    """

    def __init__(self, root: str, manifest: str, allow_http: bool) -> None:
        self._root, self._manifest, self._allow_http = root, manifest, allow_http
        self._is_local = storage.scheme(root) == "file"

    def parts(self, uri: str) -> list[str]:
        """Return the components of a URI's path, from the root if it lies below it."""
        path = storage.absolute(uri)
        below = storage.join(self._root, "")
        if path.startswith(below):
            path = path[len(below) :]
        elif "://" in path:
            path = path.partition("://")[2].partition("/")[2]
        return path.strip("/").split("/")

    def locate(self, entry: str | None, number: int) -> tuple[str, str]:
        """Return an entry's URI, without what must not be stored, and a verdict or an empty string."""
        row = f"#row-{number}"
        if entry is None or not entry.strip():
            return self._manifest + row, verdict(RejectCode.MISSING, "The row names no image.")
        if "\0" in entry:
            return self._manifest + row, verdict(RejectCode.MISSING, "No name can hold a NUL character.")
        if ":" not in entry:
            return self._from_path(entry, row)
        if "://" not in entry:
            match = _NO_PATH.match(entry)
            if not match:
                return self._from_path(entry, row)
            expected = "Expected a path or scheme://…; if this is a file's name, put './' before it."
            return f"{match[1].lower()}:…{row}", verdict(RejectCode.REFUSED, expected)
        entry = entry.strip()
        if storage.scheme(entry) != "file":
            return self._from_uri(entry, row)
        if entry.lower().startswith("file://"):
            path = entry[len("file://") :].removeprefix("localhost")
            if not path.startswith("/") or "%00" in path:
                return f"file:…{row}", verdict(RejectCode.REFUSED, "Expected file:/// and a path on this machine.")
            return storage.local_uri(storage.local_path(f"file://{path}")), ""
        shown = storage.scrub(entry)  # a URI that something stands before
        return self._from_path(entry, row) if shown == entry else (shown + row, _secret())

    def _from_path(self, path: str, row: str) -> tuple[str, str]:
        if path.startswith("~/"):
            return storage.local_uri(path), ""
        if self._is_local or path.startswith("/"):
            return storage.local_uri(os.path.join(self._root, path)), ""
        uri = storage.join(self._root, path)
        if not {".", ".."}.isdisjoint(path.split("/")):
            kind, _, place = uri.partition("://")
            bucket, *rest = posixpath.normpath(place).split("/")
            if bucket != place.partition("/")[0]:
                return uri, verdict(RejectCode.UNSAFE, "The relative entry leads out of the bucket.")
            uri = f"{kind}://{'/'.join((bucket, *rest))}"
        return self._from_uri(uri, row)

    def _from_uri(self, uri: str, row: str) -> tuple[str, str]:
        kind, rest = storage.scheme(uri), uri.partition("://")[2]
        if (kind not in OBJECT_STORES or "@" in rest or "?" in rest) and storage.has_secret(uri):
            return storage.redact(uri) + row, _secret()
        if kind in HTTP_SCHEMES:
            return f"{kind}://{rest}", "" if self._allow_http else verdict(RejectCode.REFUSED, HTTP_REFUSED)
        if kind not in OBJECT_STORES:
            return uri, verdict(RejectCode.REFUSED, f"Expected a path, s3://, gs:// or az://, got {kind}://.")
        bucket, _, key = rest.rstrip("/").partition("/")
        has_name = bucket and key and len(key) <= 1024  # the limit of all three stores
        expected = f"Expected {kind}://bucket/key, the key of at most 1024 bytes."
        return f"{kind}://{rest.rstrip('/')}", "" if has_name else verdict(RejectCode.MISSING, expected)


def _secret() -> str:
    return verdict(
        RejectCode.REFUSED,
        "User info, signatures and queries of web addresses may be secrets, so they are neither stored nor used. Put "
        "credentials into the environment, and name the object itself.",
    )


def mark_repeated(uris: list[str], versions: list[str], first: int, known: DigestMap) -> None:
    """Turn rows whose URI an earlier row has into rejects with a URI of their own; add the others to the known ones.

    Args:
        uris: Of the rows.
        versions: Of the rows.
        first: The number of the first of them, counted from 1.
        known: The URIs before them. 24 bytes each: a set of digests would take more than 100, of strings 200.
    """
    digests = digests_of(pa.array(uris, pa.string()))
    new = first_of_each(digests)
    new = new[known.find(digests[new]) < 0]
    known.add(digests[new], new + first)
    for i in sorted(set(range(len(uris))) - set(new.tolist())):
        row = known.find(digests[i : i + 1])[0]
        versions[i] = verdict(RejectCode.DUPLICATE, f"Row {row} of the manifest names the same image.")
        uris[i] += f"#row-{first + i}"


def look_up(uris: Sequence[str], versions: list[str], pool: ThreadPoolExecutor) -> None:
    """Fill in the versions of local files that have none yet."""
    unknown = [i for i, uri in enumerate(uris) if not versions[i] and storage.scheme(uri) == "file"]
    slices = [unknown[k::CONCURRENT_LOOK_UPS] for k in range(CONCURRENT_LOOK_UPS)]
    for places, found in zip(slices, pool.map(lambda places: [_version(uris[i]) for i in places], slices), strict=True):
        for i, version in zip(places, found, strict=True):
            versions[i] = version


def _version(uri: str) -> str:
    """Return a local file's version, or a verdict where there is something else, whose reading might never end."""
    try:
        status = os.stat(storage.local_path(uri))
    except PermissionError:
        return ""  # reading it will tell
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return verdict(RejectCode.MISSING, "No file can have so long a name.")
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return NEVER_THERE
        raise
    if not stat.S_ISREG(status.st_mode):
        return verdict(RejectCode.MISSING, "It is a folder or a device, not a file.")
    return version_of(status)
