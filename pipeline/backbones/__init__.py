"""Frozen feature extractors, by name."""

from pipeline.backbones.load import BACKBONES, Backbone, find_preset, load_backbone, resolve_weights
from pipeline.backbones.quantised import quantised_network
from pipeline.preprocessing import Preprocessing

__all__ = [
    "BACKBONES",
    "Backbone",
    "Preprocessing",
    "find_preset",
    "load_backbone",
    "quantised_network",
    "resolve_weights",
]
