"""What executes a backbone on a device."""

from pipeline.engines.base import Embeddings, Engine, EngineInfo, embed
from pipeline.engines.load import choose_engine, load_engine

__all__ = [
    "Embeddings",
    "Engine",
    "EngineInfo",
    "choose_engine",
    "embed",
    "load_engine",
]
