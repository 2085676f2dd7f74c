"""Train a head on a table: python -m jobs.train --table DIR --head DIR."""

from __future__ import annotations

import sys
from typing import Any

from jobs.cli import run_job
from jobs.text import (
    before_after_lines,
    curve_lines,
    leak_lines,
    metrics_line,
    random_weights_lines,
    seed_lines,
)
from pipeline.errors import ConfigError
from pipeline.heads import TrainOptions, train


def summary(record: dict[str, Any]) -> str:
    """Return what a person wants to know of the training."""
    return "\n".join(
        [
            *random_weights_lines(record["contract"]),
            f"Trained a {record['kind']} head on {len(record['classes'])} classes in {record['seconds']:.1f} s "
            f"({_chosen(record)}).",
            *(metrics_line(name, metrics) for name, metrics in record["metrics"].items()),
            *_before_after(record["before_after"]),
            *(seed_lines(record["seeds"]) if "seeds" in record else ()),
            *(curve_lines(record["learning_curve"]) if "learning_curve" in record else ()),
            *(f"Note: {note}" for note in record["notes"]),
            *leak_lines(record["leaks"]),
            f"Head: {record['head']}",
        ]
    )


def _before_after(report: dict[str, Any] | None) -> list[str]:
    return [] if report is None else ["Against the older head:", *before_after_lines(report)]


def _chosen(record: dict[str, Any]) -> str:
    """Return what was chosen on validation, or asked for."""
    config = record["config"]
    if record["kind"] == "logistic":
        return f"C = {config['C']:.3g}"
    if record["kind"] == "ridge":
        return f"alpha = {config['alpha']:.3g}"
    if record["kind"] == "knn":
        return f"k = {config['k']}"
    return f"epoch {config['best_epoch']} of {config['history'][-1]['epoch']}"


def _train(options: TrainOptions) -> dict[str, Any]:
    if not options.num_workers:
        if options.use_gpu:
            raise ConfigError("Expected --num-workers with --use-gpu. For a GPU of this machine, use --device cuda.")
        return train(options)
    from pipeline.train_workers import WorkersFit  # imports Ray

    with WorkersFit(options) as fit:
        return train(options, fit)


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job("train", TrainOptions, lambda options, _: _train(options), summary, argv)


if __name__ == "__main__":
    sys.exit(main())
