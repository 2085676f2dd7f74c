"""Where images come from."""

from pipeline.sources.base import Source
from pipeline.sources.folder import FolderSource

__all__ = ["FolderSource", "Source"]
