"""A folder tree of image files: the parent folder is the label, a top folder named like a split is the split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from pipeline import storage
from pipeline.errors import ConfigError, ImageReject, RejectCode, TransientError
from pipeline.images import sniff
from pipeline.refs import ImageRef

#: Top folders that name a split, in lower case.
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}

# fmt: off
_IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".jp2", ".j2k", ".jxl", ".avif", ".heic", ".heif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".exr", ".hdr",
    ".svg", ".eps", ".psd", ".ico", ".dng", ".cr2", ".nef", ".arw",
))
# What lies beside images; not worth opening.
_OTHER_SUFFIXES = frozenset((
    ".txt", ".md", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".html", ".htm", ".log", ".pdf", ".py",
    ".ipynb", ".npy", ".npz", ".mat", ".pkl", ".pt", ".pth", ".parquet", ".arrow", ".zip", ".tar", ".gz", ".tgz", ".7z",
    ".rar", ".mp4", ".mov", ".avi", ".mkv", ".webm", ".mp3", ".wav", ".db", ".sqlite", ".ini", ".cfg", ".safetensors",
))
# fmt: on


class FolderSource:
    """Images below a local folder.

    A file promises an image by its suffix, decodable here or not, so that none is lost in silence: what can't be
    decoded becomes a reject. Where the suffix is none that is known (``img_v1.0``), the first bytes decide. All other
    files are passed over and counted in ``skipped``.
    """

    def __init__(self, root: str) -> None:
        path = storage.local_path(root)
        if not os.path.isdir(path):
            kind = "a file" if os.path.exists(path) else "nothing"
            raise ConfigError(f"Expected a folder of images at {path}, found {kind} there. Check --source.")
        self._root = path
        self.skipped: Counter[str] = Counter()

    def refs(self) -> Iterator[ImageRef]:
        """Yield every image, folder by folder in name order."""
        self.skipped.clear()
        for info in storage.list_files(self._root):
            path = storage.local_path(info.uri)
            suffix = os.path.splitext(path)[1].lower()
            if suffix not in _IMAGE_SUFFIXES and (suffix in _OTHER_SUFFIXES or not _looks_like_image(info, suffix)):
                self.skipped[storage.printable(suffix) or "(no suffix)"] += 1
                continue
            folders = os.path.relpath(path, self._root).split(os.sep)[:-1]
            split = SPLIT_FOLDERS.get(folders[0].lower()) if folders else None
            labelled = folders[1:] if split else folders
            label = storage.printable(labelled[-1]) if labelled else None
            yield ImageRef(info.uri, info.version, label, split)

    def read(self, uri: str, max_bytes: int) -> bytes:
        """Return an image's bytes; see `pipeline.sources.base.Source`."""
        try:
            return storage.read_bytes(uri, max_bytes)
        except FileNotFoundError:
            if not os.path.isdir(self._root):  # a lost mount is no missing image
                raise TransientError(f"The source folder {self._root} is gone. Mount it, and run again.") from None
            raise ImageReject("read", RejectCode.MISSING, "The file was listed, but is not there any more.") from None


def _looks_like_image(info: storage.FileInfo, suffix: str) -> bool:
    """Return whether a file is an image, or may have been one before it was cut to nothing."""
    try:
        return (info.size == 0 and not suffix) or sniff(storage.read_bytes(info.uri, 16)) is not None
    except OSError:
        return True  # reading it will tell
