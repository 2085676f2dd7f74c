"""Weights files: fetched once a node. Imports no PyTorch, since a process that only asks for a digest needs none."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from filelock import FileLock

from pipeline import storage
from pipeline.errors import ConfigError, WeightsError, WeightsUnavailable
from pipeline.failures import Seam, Verdict, find
from pipeline.storage import StorageOptions

#: Waits in seconds between the attempts to download weights.
DOWNLOAD_BACKOFF_S = (1.0, 4.0, 16.0)


def fetch(
    uri: str,
    cache_dir: str,
    backoff_s: tuple[float, ...] = DOWNLOAD_BACKOFF_S,
    other_than: str | None = None,
    options: StorageOptions | None = None,
) -> Path:
    """Return a local path of the weights: a local file itself, a remote one by way of the node's cache.

    One process a node downloads, under a lock and to a temporary name; the others wait and use its copy. The file's
    SHA-256 is kept beside it, so a copy that was damaged later is found and fetched again.

    Args:
        uri: Where they are.
        cache_dir: Folder of the cache.
        backoff_s: Waits (seconds) between attempts to download.
        other_than: SHA-256 (hex) of a copy that is of no use; another one that is there by now is taken.
        options: Of the object store that holds them, see `pipeline.storage.store_for`.

    Raises:
        WeightsError: There is no such file.
        WeightsUnavailable: It can't be downloaded now.
    """
    if storage.scheme(uri) == "file":
        path = Path(storage.local_path(uri))
        if not path.is_file():
            raise WeightsError(f"Expected a weights file at {path}, found none. Check --weights.")
        return path
    name = storage.redact(uri).rsplit("/", 1)[-1] or "weights"
    target = Path(cache_dir).expanduser() / "weights" / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}-{name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if storage.kept_sha256(target) not in (None, other_than):
            return target
        storage.clear_unfinished(target)
        _download(uri, target, backoff_s, options)
        storage.note_sha256(target)
    return target


def _download(uri: str, target: Path, backoff_s: tuple[float, ...], options: StorageOptions | None) -> None:
    for attempt, wait_s in enumerate((*backoff_s, None), start=1):
        try:
            storage.download(uri, target, options)
            return
        except ConfigError:
            raise
        except Exception as error:  # fsspec's back ends raise their own trees
            verdict = find(error, Seam.WEIGHTS).verdict
            if wait_s is not None and verdict is Verdict.RETRY:
                time.sleep(wait_s)
                continue
            kind = WeightsError if verdict is Verdict.FATAL else WeightsUnavailable
            what = f"they can't be downloaded after {attempt} attempt(s)"
            raise kind(
                f"Expected weights at {storage.redact(uri)}, but {storage.explained(error, what).rstrip('.')}. Give a "
                "copy with --weights PATH "
                "(.safetensors, .pt, .pth or .tar; local, s3://, gs://, az:// or https://), or try the pipeline "
                "without trained weights with --weights random:0."
            ) from None
