"""Reading what a manifest names: in order, from several stores, and with trouble told from missing images."""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path
from typing import IO

import pyarrow as pa
import pytest

from pipeline.errors import ImageReject, RejectCode, TransientError
from pipeline.sources.manifest import ManifestSource
from pipeline.storage import FileInfo, LocalStore
from tests import samples
from tests.sources.manifests import images, listed, outcome, verdicts, write


class Bucket:
    """Objects by their URIs, as far as a source needs a store."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects, self.looks = objects, 0

    def info(self, uri: str) -> FileInfo | None:
        return FileInfo(uri, len(self.objects[uri]), "etag") if uri in self.objects else None

    def is_folder(self, uri: str) -> bool:
        self.looks += 1
        return any(name.startswith(f"{uri}/") for name in self.objects)

    def open(self, uri: str, block_bytes: int = 0) -> IO[bytes]:
        return io.BytesIO(self.objects[uri])

    def read_bytes(self, uri: str, max_bytes: int | None = None) -> bytes:
        if uri not in self.objects:
            raise FileNotFoundError(uri)
        return self.objects[uri][: None if max_bytes is None else max_bytes + 1]


def test_read__rows_and_images_in_order(tmp_path: Path, image: Path) -> None:
    path = write(tmp_path, "list.csv", 'uri,label,n\nnone.jpg,x,1\na.jpg,y,2\n"",z,3\na.jpg,w,4\n')
    source: ManifestSource = pickle.loads(pickle.dumps(ManifestSource(path)))
    refs = listed(source).append_column("unit", pa.array([0, 0, 0, 0]))
    reading = source.read(refs, 4)
    found = [(fetched.uri, outcome(fetched)) for fetched in reading.images()]
    assert found == [
        (str(tmp_path / "none.jpg"), RejectCode.MISSING),
        (str(image), b"bytes"),
        (f"{path}#row-3", RejectCode.MISSING),
        (f"{image}#row-4", RejectCode.DUPLICATE),
    ]
    assert reading.rows().to_pydict() == {
        "uri": [uri for uri, _ in found],
        "label": ["x", "y", "z", "w"],
        "split": [None] * 4,
        "n": [1, 2, 3, 4],
    }


def test_read__a_lost_folder_is_no_missing_image(tmp_path: Path) -> None:
    root = tmp_path / "mount"
    samples.write(root / "a.jpg", b"x")
    samples.write(root / "b.jpg", b"x")
    source = ManifestSource(write(tmp_path, "list.csv", "uri\na.jpg\n"), root=str(root))
    refs = listed(source)
    (root / "a.jpg").unlink()
    assert [outcome(found) for found in source.read(refs, 9).images()] == [RejectCode.MISSING]
    (root / "b.jpg").unlink()
    with pytest.raises(TransientError, match="is gone or empty"):
        list(source.read(refs, 9).images())
    root.rmdir()
    with pytest.raises(TransientError, match="is gone"):
        list(source.read(refs, 9).images())


def test_read__a_lost_mount_elsewhere_is_no_missing_image(tmp_path: Path) -> None:
    mount = tmp_path / "mnt" / "share"
    entries = [samples.write(mount / "photos" / f"{name}.jpg", b"x") for name in "ab"] + [mount / "none" / "c.jpg"]
    source = ManifestSource(write(tmp_path, "list.csv", "uri\n" + "".join(f"{entry}\n" for entry in entries)))
    refs = listed(source)
    entries[0].unlink()
    missing = RejectCode.MISSING
    assert [outcome(found) for found in source.read(refs, 9).images()] == [missing, b"x", missing]
    shutil.rmtree(mount / "photos")
    with pytest.raises(TransientError, match=rf"{mount} is gone or empty.*is it mounted"):
        list(source.read(refs, 9).images())
    (only,) = source.read(refs.slice(2), 9).images()
    assert outcome(only) == missing  # it wasn't there when the list was read
    samples.write(mount / "other" / "d.jpg", b"x")
    assert [outcome(found) for found in source.read(refs, 9).images()] == [missing] * 3


def test_read__a_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    rows = f"uri,version\n{'x' * 300}.jpg,1\n"
    assert images(ManifestSource(write(tmp_path, "list.csv", rows)))[0][1] is RejectCode.MISSING


def test_read__trouble_is_no_reject(tmp_path: Path, image: Path) -> None:
    class Locked(LocalStore):
        def read_bytes(self, uri: str, max_bytes: int | None = None) -> bytes:
            raise PermissionError(13, "Locked", uri)

    source = ManifestSource(write(tmp_path, "list.csv", "uri\na.jpg\n"), Locked())
    with pytest.raises(PermissionError):
        list(source.read(listed(source), 9).images())


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:1", "169.254.169.254", "[::1]:1"])
def test_read__no_web_server_of_this_network(tmp_path: Path, host: str) -> None:
    source = ManifestSource(write(tmp_path, "list.csv", f"uri\nhttp://{host}/a.jpg\n"), allow_http=True)
    assert verdicts(source) == [(f"http://{host}/a.jpg", "")]
    assert images(source) == [(f"http://{host}/a.jpg", RejectCode.REFUSED)]


def test_read__no_web_server_unless_allowed_now(tmp_path: Path) -> None:
    path = write(tmp_path, "list.csv", "uri\nhttp://example.com/a.jpg\n")
    refs = listed(ManifestSource(path, allow_http=True))
    (found,) = ManifestSource(path).read(refs, 9).images()
    assert isinstance(found.data, ImageReject)
    assert (found.data.code, found.data.message) == (
        RejectCode.REFUSED,
        "Web addresses are read with --allow-http only.",
    )


def test_read__objects_beside_the_manifest(image: Path) -> None:
    bucket = Bucket({"s3://b/l/list.csv": f"uri\na\nnone\nnone2\n{image}\n".encode(), "s3://b/l/a": b"12345"})
    source = ManifestSource("s3://b/l/list.csv", bucket)  # type: ignore[arg-type]
    assert source.identity == "manifest s3://b/l/list.csv"
    assert verdicts(source)[:2] == [("s3://b/l/a", ""), ("s3://b/l/none", "")]
    refs = listed(source)
    assert [outcome(found) for found in source.read(refs, 3).images()] == [
        b"1234",
        RejectCode.MISSING,
        RejectCode.MISSING,
        b"byte",
    ]
    assert bucket.looks <= 1  # a bucket that has given an object is there
    bucket.objects.clear()
    with pytest.raises(TransientError, match="The bucket s3://b is gone"):
        list(source.read(refs, 3).images())
