"""Metrics and ledgers as lines for people."""

from __future__ import annotations

from typing import Any


def metrics_line(name: str, metrics: dict[str, Any]) -> str:
    """Return one split's headline metrics, top-1 accuracy with its 95 % interval."""
    loss = "-" if metrics["log_loss"] is None else f"{metrics['log_loss']:.4f}"
    low, high = metrics["intervals"]["top1"]
    line = (
        f"{name:>10}: top-1 {metrics['top1']:.4f} [{low:.4f}, {high:.4f}], top-5 {metrics['top5']:.4f}, "
        f"macro F1 {metrics['macro_f1']:.4f}, log loss {loss}, ECE {metrics['ece']:.4f} ({metrics['num_rows']} rows)"
    )
    if metrics["num_unknown_class"]:
        line += f"; {metrics['num_unknown_class']} of a class unknown to the head, counted as wrong"
    return line


def class_lines(metrics: dict[str, Any]) -> list[str]:
    """Return one line a class."""
    width = max(len(name) for name in metrics["per_class"])
    lines = [f"{'class':>{width}}  precision  recall      f1  support"]
    for name, value in metrics["per_class"].items():
        lines.append(
            f"{name:>{width}}  {value['precision']:9.4f}  {value['recall']:6.4f}  {value['f1']:6.4f}  "
            f"{value['support']:7d}"
        )
    return lines


def ledger_line(ledger: dict[str, int]) -> str:
    """Return the accounting of a run that is complete."""
    return f"Ledger: {ledger['planned']} planned = {ledger['embedded']} embedded + {ledger['rejected']} rejected."


def random_weights_lines(contract: dict[str, Any]) -> list[str]:
    """Return a warning where the features come from a network that was never trained."""
    weights = (contract.get("quantisation") or {}).get("float_weights", contract["weights"])
    if not weights.startswith("random:"):
        return []
    return [f"Weights are RANDOM ({weights}): these are features of an untrained network."]
