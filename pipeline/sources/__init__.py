"""Where images come from."""

from pipeline.sources.base import Fetched, Reading, Source
from pipeline.sources.detect import described, open_source, reopened
from pipeline.sources.folder import FolderSource

__all__ = ["Fetched", "FolderSource", "Reading", "Source", "described", "open_source", "reopened"]
