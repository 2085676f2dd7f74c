"""Backbone and head as one program, to be run without this project."""

from pipeline.export.job import export
from pipeline.export.options import ExportOptions, ProgramFormat

__all__ = ["ExportOptions", "ProgramFormat", "export"]
