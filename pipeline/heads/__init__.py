"""Classifiers trained on stored embeddings. The table is their only tie to the rest."""

from typing import TYPE_CHECKING, Any

from pipeline.heads.artefact import Head, load_head, save_head
from pipeline.heads.options import EvaluateOptions, HeadOptions, TrainOptions
from pipeline.heads.predictions import Predictor, classify
from pipeline.heads.train import evaluate, train
from pipeline.table.schema import PREDICTION_SCHEMA

if TYPE_CHECKING:
    from pipeline.heads.fit import fit_head

__all__ = [
    "PREDICTION_SCHEMA",
    "EvaluateOptions",
    "Head",
    "HeadOptions",
    "Predictor",
    "TrainOptions",
    "classify",
    "evaluate",
    "fit_head",
    "load_head",
    "save_head",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "fit_head":  # what fits imports PyTorch and SciPy, three seconds for each actor that predicts
        from pipeline.heads.fit import fit_head

        return fit_head
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
