"""Options of the doctor job. Imports nothing slow, so that --help and a wrong option answer at once."""

from __future__ import annotations

from pydantic import Field

from pipeline.options import Options
from pipeline.run_options import EmbeddingOptions, FeatureOptions
from pipeline.sources.options import SourceOptions


class _DoctorWhat(Options):
    table: str | None = Field(
        None,
        description="Where writing is measured: the folder of a table, which may be there or not. Nothing stays "
        "there. Unset: a temporary folder of this machine, which says nothing of a bucket.",
    )
    seconds: float = Field(4.0, gt=0, le=60, description="Longest time for the measurement of each stage (seconds).")
    num_images: int | None = Field(
        None, ge=1, description="Images of the whole source, where it takes too long to list; unset: by the listing."
    )
    nodes: int = Field(1, ge=1, description="Nodes like this machine that the estimate is for.")
    price_per_hour: float | None = Field(
        None, ge=0, description="Price of one node for an hour, in any currency; unset: node-hours only."
    )


class DoctorOptions(EmbeddingOptions, FeatureOptions, _DoctorWhat, SourceOptions):
    """Measure each stage on a sample of a source, name the slowest, and estimate the whole run."""
