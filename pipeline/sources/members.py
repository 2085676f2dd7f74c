"""What the name and the kind of a tar's member say: its sample, its field, and whether it must not be read."""

from __future__ import annotations

import tarfile

from pipeline.errors import ImageReject, RejectCode
from pipeline.sources.folder import IMAGE_SUFFIXES
from pipeline.storage import printable


def path_parts(name: str) -> list[str]:
    """Return the folders of a member's name, and its base name; ``./a.jpg`` is ``a.jpg``."""
    return [part for part in name.split("/") if part not in ("", ".")]


def key_and_field(name: str) -> tuple[str, str]:
    """Return the key of the sample that a member belongs to, and its field.

    As WebDataset has it, the key ends at the first dot of the base name: ``a/b.seg.png`` is field ``seg.png`` of
    sample ``a/b``.
    """
    *folders, base = path_parts(name) or [""]
    stem, _, rest = base.partition(".")
    return "/".join([*folders, stem]), rest.lower()


def is_image(name: str) -> bool:
    """Return whether a field is the image of its sample; ``seg.png`` is none."""
    return f".{name}" in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Return whether a member, or a folder on the way to it, begins with a dot, as in ``._a.jpg``."""
    return _is_inside(name) and any(part.startswith(".") for part in path_parts(name))


def _is_inside(name: str) -> bool:
    parts = path_parts(name)
    return bool(parts) and ".." not in parts and not name.startswith("/")


def refusal(member: tarfile.TarInfo) -> ImageReject | None:
    """Return why a member must not be read; None where it may be."""
    if not _is_inside(member.name):
        return _unsafe("a name that stays inside the tar", "an absolute one, an empty one or one with '..'")
    if member.issym() or member.islnk():
        return _unsafe("a file", f"a {'symbolic' if member.issym() else 'hard'} link to {printable(member.linkname)!r}")
    if not member.isreg():
        return _unsafe("a file", f"a device, pipe or other member of type {member.type!r}")
    if member.issparse():
        return ImageReject("read", RejectCode.UNSUPPORTED, "Sparse members are not read. Pack without --sparse.")
    return None


def _unsafe(expected: str, got: str) -> ImageReject:
    return ImageReject("read", RejectCode.UNSAFE, f"Expected {expected}, got {got}. Pack plain files, relative names.")
