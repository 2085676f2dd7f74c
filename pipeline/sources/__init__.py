"""Where images come from. What opens them is in `detect`, which reading processes don't need."""

from pipeline.sources.base import Fetched, Reading, Source
from pipeline.sources.folder import FolderSource

__all__ = ["Fetched", "FolderSource", "Reading", "Source"]
