"""What the sources' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import samples


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file that a manifest can name."""
    return samples.write(tmp_path / "a.jpg", b"bytes of a")
