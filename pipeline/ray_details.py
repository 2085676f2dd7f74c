"""Other values for details of Ray that it has no options for, for the length of a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replaced(*details: tuple[Any, str, Any]) -> Iterator[None]:
    """Replace attributes of Ray's modules or classes within a block.

    Args:
        details: Owner, name and value of each.

    Raises:
        KeyError: This version of Ray has no such attribute.
    """
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in details]
    try:
        for owner, name, value in details:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
