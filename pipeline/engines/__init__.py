"""What executes a backbone on a device."""

from pipeline.engines.base import (
    Embeddings,
    Engine,
    EngineInfo,
    FileEngine,
    PixelRows,
    SharedEngine,
    embed,
    embed_by_batches,
)
from pipeline.engines.load import (
    choose_engine,
    cuda_here,
    load_engine,
    load_file_engine,
    require_cpu_engine,
    require_here,
    suited,
)

__all__ = [
    "Embeddings",
    "Engine",
    "EngineInfo",
    "FileEngine",
    "PixelRows",
    "SharedEngine",
    "choose_engine",
    "cuda_here",
    "embed",
    "embed_by_batches",
    "load_engine",
    "load_file_engine",
    "require_cpu_engine",
    "require_here",
    "suited",
]
