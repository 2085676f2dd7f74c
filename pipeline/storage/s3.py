"""Objects in S3 and in stores that speak its protocol: listed page by page, written on a condition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.failures import status_of
from pipeline.storage.base import Conditions, FileInfo, Store
from pipeline.storage.errors import as_os_errors
from pipeline.storage.remote import RemoteStore
from pipeline.storage.retry import retried
from pipeline.storage.walk import Page

#: Connections of one process to one store: as many as are read at once, and some for other work.
_MAX_CONNECTIONS = 96
_PRECONDITION_FAILED, _NOT_IMPLEMENTED = 412, 501
#: Files on a page of 1,000 that make a folder one of files, not of folders.
_MANY_FILES = 500
#: A condition that an object which is there never meets, of either kind: an ETag is a digest, and none is all zeros.
_NEVER_MET = {"create": {"IfNoneMatch": "*"}, "replace": {"IfMatch": f'"{"0" * 32}"'}}


class S3Store(RemoteStore):
    """One S3 store; see `pipeline.storage.base.Store` and `RemoteStore`."""

    usual_conditions = Conditions()

    def probed(self, uri: str) -> Store:
        """Find out which conditions the store minds, as some ignore them in silence.

        The bytes of an object are put once more on conditions that it doesn't meet. So whatever the store makes of
        that, they stay as they are, and there is nothing to take away again.
        """
        data = self.read_bytes(uri)
        minds = {name: self._minds(uri, data, condition) for name, condition in _NEVER_MET.items()}
        return S3Store(self._scheme, self._options, Conditions(**minds))

    def _minds(self, uri: str, data: bytes, condition: dict[str, str]) -> bool:
        try:
            return self._put_on(uri, data, condition) is False
        except PermissionError:  # no sign of a store that overwrites: one may read only, or a policy allows no such PUT
            return True

    def _client_options(self) -> dict[str, Any]:
        own = {
            # Not the adaptive mode: it makes all of a process's requests wait for one another once the store asks to
            # slow down, a hundred times longer than the store does; see docs/architecture.md.
            "retries": {"mode": "standard", "total_max_attempts": 3},
            "max_pool_connections": _MAX_CONNECTIONS,
            "connect_timeout": 10,
            "read_timeout": 60,
        }
        return {**self._options, "config_kwargs": {**own, **self._options.get("config_kwargs", {})}}

    @retried
    def _call(self, method: str, where: str, **request: Any) -> Any:
        with as_os_errors(where):
            return self._fs.call_s3(method, **request)

    def _answers(self, folder: str, **request: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages of a listing."""
        bucket, prefix = _bucket_and_prefix(folder)
        request = {"Bucket": bucket, "Prefix": prefix, **request}
        while True:
            answer = self._call("list_objects_v2", folder, **request)
            yield answer
            if not answer.get("IsTruncated"):
                return
            request["ContinuationToken"] = answer["NextContinuationToken"]

    def entries(self, folder: str) -> list[FileInfo | str] | None:
        """Return what is directly below a prefix; folders end with their slash, since a key may have several."""
        bucket, prefix = _bucket_and_prefix(folder)
        items: dict[str, FileInfo | str] = {}
        for answer in self._answers(folder, Delimiter="/"):
            items.update({item["Key"]: _info(bucket, item) for item in answer.get("Contents", ())})
            folders = (item["Prefix"] for item in answer.get("CommonPrefixes", ()))
            items.update({key: f"s3://{bucket}/{key}" for key in folders})
            if answer.get("IsTruncated") and len(answer.get("Contents", ())) > _MANY_FILES:
                return None
        # What is called as the prefix itself stands for an empty folder.
        wanted = (key for key in sorted(items) if key != prefix and not key[len(prefix) :].startswith("."))
        return [items[key] for key in wanted]

    def pages(self, folder: str) -> Iterator[Page]:
        """Yield every object below a prefix, a page of the store's listing at a time."""
        bucket, prefix = _bucket_and_prefix(folder)
        for answer in self._answers(folder):
            yield [
                _info(bucket, item)
                for item in answer.get("Contents", ())
                if not item["Key"].endswith("/") and "/." not in f"/{item['Key'][len(prefix) :]}"
            ]

    def is_folder(self, uri: str) -> bool:
        """Return whether any object's key begins so; an empty bucket counts, too."""
        bucket, prefix = _bucket_and_prefix(uri)
        try:
            answer = self._call("list_objects_v2", uri, Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except FileNotFoundError:
            return False
        return not prefix or bool(answer.get("KeyCount"))

    def list_names(self, folder: str) -> list[str]:
        """Return the names below a prefix."""
        _, prefix = _bucket_and_prefix(folder)
        names: set[str] = set()
        try:
            for answer in self._answers(folder, Delimiter="/"):
                names.update(item["Key"] for item in answer.get("Contents", ()))
                names.update(item["Prefix"] for item in answer.get("CommonPrefixes", ()))
        except FileNotFoundError:
            return []
        below = (name[len(prefix) :].rstrip("/") for name in names)
        return sorted(name for name in below if name and not name.startswith("."))

    def written_at(self, folder: str) -> dict[str, float]:
        """Return the objects' times of last modification."""
        _, prefix = _bucket_and_prefix(folder)
        times: dict[str, float] = {}
        try:
            for answer in self._answers(folder, Delimiter="/"):
                items = (item for item in answer.get("Contents", ()) if item["Key"] != prefix)
                times.update({item["Key"][len(prefix) :]: item["LastModified"].timestamp() for item in items})
        except FileNotFoundError:
            return {}
        return times

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Create an object unless it is there, in one conditional PUT where the store has them."""
        if self._conditions.create:
            created = self._put_on(uri, data, {"IfNoneMatch": "*"})
            if created is not None:
                return created
        if self.info(uri) is not None:
            return False
        self.replace(uri, data)
        return True

    def replace(self, uri: str, data: bytes) -> None:
        """Write an object, in one PUT whatever its size: the clients' uploads in parts need the right to delete."""
        bucket, _, key = self._path(uri).partition("/")
        self._call("put_object", uri, Bucket=bucket, Key=key, Body=data)

    def replace_if(self, uri: str, data: bytes, version: str) -> bool:
        """Write an object in place of one of a known ETag; the store itself compares where it can."""
        if self._conditions.replace:
            replaced = self._put_on(uri, data, {"IfMatch": f'"{version}"'})
            if replaced is not None:
                return replaced
        return super().replace_if(uri, data, version)

    @retried
    def _put_on(self, uri: str, data: bytes, condition: dict[str, str]) -> bool | None:
        """Write an object on a condition.

        Where an answer is lost, the client asks again: then False may also mean that this very call has written it.

        Returns:
            Whether the condition was met; None where the store says that it has none.
        """
        bucket, _, key = self._path(uri).partition("/")
        with as_os_errors(uri):
            try:
                self._fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
            except FileNotFoundError:
                if "IfMatch" in condition:
                    return False
                raise
            except OSError as error:
                status = status_of(error)
                if status == _PRECONDITION_FAILED or isinstance(error, FileExistsError):
                    return False
                if status == _NOT_IMPLEMENTED:
                    return None
                raise  # among others 409, where somebody else is writing it at this moment: that may pass
        return True


def _bucket_and_prefix(folder: str) -> tuple[str, str]:
    bucket, _, key = folder.partition("://")[2].partition("/")
    return bucket, key if not key or key.endswith("/") else f"{key}/"


def _info(bucket: str, item: dict[str, Any]) -> FileInfo:
    return FileInfo(f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"].strip('"'))
