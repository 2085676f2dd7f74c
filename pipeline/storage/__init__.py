"""The only door to files: the spelling of URIs, and stores that list, read and write."""

from pipeline.storage.access import refuse_secrets, require_folder, require_place, store_for
from pipeline.storage.base import Conditions, FileInfo, StorageOptions, Store
from pipeline.storage.errors import explained, log_traceback
from pipeline.storage.fetch import (
    clear_unfinished,
    copy,
    default_cache_dir,
    download,
    file_sha256,
    kept_sha256,
    note_sha256,
    open_stream,
)
from pipeline.storage.local import LocalStore
from pipeline.storage.remote import RemoteStore
from pipeline.storage.retry import may_pass, retried
from pipeline.storage.uris import (
    OBJECT_STORES,
    REMOTE_SCHEMES,
    absolute,
    base_name,
    has_secret,
    holder,
    is_signed,
    join,
    local_path,
    local_uri,
    printable,
    redact,
    scheme,
    scrub,
)

__all__ = [
    "OBJECT_STORES",
    "REMOTE_SCHEMES",
    "Conditions",
    "FileInfo",
    "LocalStore",
    "RemoteStore",
    "StorageOptions",
    "Store",
    "absolute",
    "base_name",
    "clear_unfinished",
    "copy",
    "default_cache_dir",
    "download",
    "explained",
    "file_sha256",
    "has_secret",
    "holder",
    "is_signed",
    "join",
    "kept_sha256",
    "local_path",
    "local_uri",
    "log_traceback",
    "may_pass",
    "note_sha256",
    "open_stream",
    "printable",
    "redact",
    "refuse_secrets",
    "require_folder",
    "require_place",
    "retried",
    "scheme",
    "scrub",
    "store_for",
]
