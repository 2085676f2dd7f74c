"""What executes a backbone on a device."""

from pipeline.engines.base import Device, Embeddings, Engine, EngineInfo, EngineName, Precision, embed
from pipeline.engines.load import choose_engine, load_engine

__all__ = [
    "Device",
    "Embeddings",
    "Engine",
    "EngineInfo",
    "EngineName",
    "Precision",
    "choose_engine",
    "embed",
    "load_engine",
]
