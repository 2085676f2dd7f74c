"""Options that every job on images has. Imports nothing slow, so that --help and a wrong option answer at once."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from pipeline.choices import Decoder, Device, EmbeddingType, EngineName, Precision
from pipeline.images import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS
from pipeline.options import Options
from pipeline.storage import default_cache_dir

#: Images of a unit, unless it is said otherwise.
UNIT_SIZE = 1024


class FeatureOptions(Options):
    """Which features, and how they are stored."""

    backbone: str = Field("microsoftvision-resnet50", description="Feature extractor, see docs/backbones.md.")
    weights: str = Field(
        "auto",
        description="Weights of the backbone: 'auto' (the published file, fetched once a node), 'random:SEED' (not "
        "trained; for trials and tests), or the path or URI of a state dict (.safetensors, .pt, .pth, .tar) or of the "
        "quantised network of a table (its network/*.safetensors).",
    )
    preprocess: str | None = Field(None, description="Preprocessing preset; unset: the backbone's default.")
    dtype: EmbeddingType = Field("float32", description="Type of the stored embeddings.")


class EmbeddingOptions(Options):
    """How images are decoded and embedded, on a cluster or in a probe."""

    engine: EngineName = Field("auto", description="What executes the backbone; auto: torch on CUDA, openvino on CPUs.")
    precision: Precision = Field(
        "auto",
        description="Arithmetic; auto: fp16 on CUDA, bf16 with openvino where the processor has it, else fp32. int8 "
        "are other features: jobs.embed quantises the network of a new table, see docs/backbones.md.",
    )
    device: Device = Field(
        "auto", description="Where the backbone runs; auto: CUDA where the cluster has GPUs now, else CPUs."
    )
    decode: Decoder = Field(
        "cpu",
        description="What decodes usual JPEGs; gpu: that which runs the backbone (needs torchvision), CPUs the others.",
    )
    num_actors: int | None = Field(
        None,
        ge=1,
        description="Most copies of the backbone at once (actors); unset: one a GPU, or a CPU node (32 cores).",
    )
    num_threads: int | None = Field(
        None, ge=1, description="Threads of each actor that computes on CPUs; unset: its share of the node's cores."
    )
    batch_size: int | None = Field(
        None, ge=1, le=65536, description="Images in one call of the network; unset: the engine's choice."
    )
    table_storage_options: dict[str, Any] = Field(
        {}, description="Of the table's (and the head's) file system, as for --storage-options."
    )
    max_image_pixels: int = Field(MAX_IMAGE_PIXELS, ge=1, description="Largest image, width x height (pixels).")
    max_image_bytes: int = Field(MAX_IMAGE_BYTES, ge=1, description="Longest image file (bytes).")
    allow_tiff: bool = Field(False, description="Decode TIFF, too: the first page, with 1 to 16 bits a sample.")
    cache_dir: str = Field(
        default_cache_dir(), description="Folder on each node where fetched weights and converted networks are kept."
    )
    verbose: bool = Field(False, description="Show Ray's own log, and the traceback of a failure.")


class WorkOptions(EmbeddingOptions):
    """Options of every job that reads and embeds images on a cluster."""

    reuse: tuple[str, ...] = Field(
        (),
        description="Tables of the same features: images with the same bytes get their embeddings copied from there.",
    )
    stall_timeout_s: float = Field(
        1800.0,
        gt=0,
        description="Stop, to be resumed, when nothing was read, embedded or committed for so long (seconds).",
    )
    max_reject_fraction: float = Field(
        0.1, ge=0, le=1, description="Largest share of rejected images before the job ends with exit code 3 (0 to 1)."
    )


class RunOptions(WorkOptions):
    """Options of every job that brings a source into a table."""

    unit_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Images that are read, embedded and committed together; a run's first units are smaller. Unset: "
        f"{UNIT_SIZE}, or {UNIT_SIZE // 2} where a machine alone computes on its CPUs (images).",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Take the first N images of the source only (of containers: the first N shards or slices).",
    )
    prune: bool = Field(False, description="Take out the rows of images that this source had once and has no more.")
