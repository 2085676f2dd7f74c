"""Distributed batch embedding of image datasets, and heads on the embeddings."""

__version__ = "0.1.0"
