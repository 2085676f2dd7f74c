"""The benchmark's plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt


def plot_rates(figures: dict[str, Any], path: Path) -> None:
    """Draw whole-run and steady rates of all contestants, and the bound, as bars."""
    contestants = figures["contestants"]
    names = list(contestants)[::-1]
    figure, axes = plt.subplots(figsize=(8, 0.6 * len(names) + 1.2), layout="constrained")
    for offset, key, label in ((0.2, "steady_images_per_s", "steady"), (-0.2, "whole_images_per_s", "whole run")):
        values = [contestants[name][key] or 0 for name in names]
        bars = axes.barh([place + offset for place in range(len(names))], values, 0.38, label=label)
        axes.bar_label(bars, [f" {value:.0f}" if value else "" for value in values], fontsize=8)
    axes.axvline(figures["bound_images_per_s"], color="black", linestyle=":", label="1 / (1/model + 1/decode)")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("images/s")
    axes.set_title(f"{figures['machine']}, {figures['engine']}", fontsize=9)
    axes.legend(loc="lower right", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
