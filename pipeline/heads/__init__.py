"""Classifiers trained on stored embeddings. The table is their only tie to the rest."""

from pipeline.heads.artefact import Head, load_head, save_head
from pipeline.heads.fit import fit_head
from pipeline.heads.options import EvaluateOptions, HeadOptions, TrainOptions
from pipeline.heads.predictions import classify
from pipeline.heads.train import evaluate, train
from pipeline.table.schema import PREDICTION_SCHEMA

__all__ = [
    "PREDICTION_SCHEMA",
    "EvaluateOptions",
    "Head",
    "HeadOptions",
    "TrainOptions",
    "classify",
    "evaluate",
    "fit_head",
    "load_head",
    "save_head",
    "train",
]
