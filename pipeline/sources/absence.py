"""Tell an image that is gone for good from one that can't be read now."""

from __future__ import annotations

from pipeline import storage
from pipeline.errors import ImageReject
from pipeline.failures import Seam, Verdict, find
from pipeline.storage import Store


def absent(
    error: Exception,
    store: Store,
    place: str | None,
    reason: str = "The file was listed, but is not there any more.",
    or_above: bool = False,
) -> ImageReject | None:
    """Return the reject that an error in opening a file is; None where it is another error, which may pass.

    Args:
        error: What the store raised.
        store: Which one.
        place: The folder or bucket that must be there, see `pipeline.storage.require_place`; None where it is known to.
        reason: The reject's message.
        or_above: Whether the folder may have been deleted too.

    Raises:
        TransientError: The place itself is lost, as a mount may be; that is no missing image.
    """
    failure = find(error, Seam.SOURCE)
    if failure.verdict is not Verdict.REJECT or failure.code is None:
        return None
    if place is not None:
        storage.require_place(store, place, or_above)
    return ImageReject("read", failure.code, reason)
