"""What jobs.probe can be asked for. Imports nothing slow."""

from __future__ import annotations

from pydantic import Field

from pipeline.choices import EmbeddingType
from pipeline.options import Options
from pipeline.run_options import EmbeddingOptions


class _Comparison(Options):
    suite: str = Field(
        description="What to compare: the name of a suite that comes with the package (demo, microsoft-vision), or a "
        "YAML file, see docs/probe.md."
    )
    output: str = Field(description="Folder for the report, the results, the heads and the embedding tables.")
    data: str | None = Field(None, description="Folder that {data} stands for in the suite's sources.")
    only: tuple[str, ...] = Field((), description="Datasets of the suite to take, by name; unset: all.")
    dtype: EmbeddingType = Field("float32", description="Type of the stored embeddings.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of what is held out, and of the intervals.")
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="Memory for features (GiB); where they don't fit, they are streamed. Unset: half of what is free.",
    )


class ProbeOptions(EmbeddingOptions, _Comparison):  # in this order --help begins with the suite
    """Compare backbones on datasets by linear probes, and write one table of the results."""
