"""Where images come from."""

from pipeline.sources.base import ImageRef, Source
from pipeline.sources.folder import FolderSource

__all__ = ["FolderSource", "ImageRef", "Source"]
