"""The benchmark's table on the screen."""

from __future__ import annotations

from typing import Any

#: Cores that other programs may use while figures are trusted. What runs measure of themselves, twice a second, lacks
#: the last moments of each process.
_OTHERS_CORES = 0.25


def show(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    print(f"\n{figures['machine']}, {figures['engine']}, JPEGs of {figures['image_bytes'] / 1000:.0f} kB\n")
    print(f"{'':28}{'images':>8}{'whole':>9}{'steady':>9}{'of images':>11}{'seconds':>9}{'cpu s':>8}{'memory':>9}")
    for name, one in figures["contestants"].items():
        whole = f"{'~' * one['whole_is_reckoned']}{one['whole_images_per_s']:.1f}"
        steady = f"{one['steady_images_per_s']:.1f}" if one["steady_images_per_s"] else ""
        of = f"{one['steady_images']:,}" if one["steady_images"] else ""
        print(
            f"{name:28}{one['images']:8,}{whole:>9}{steady:>9}{of:>11}{one['seconds']:9.1f}"
            f"{one['cpu_s']:8.0f}{one['peak_bytes'] / 2**30:6.1f} GiB"
        )
    print("\nWhole: images/s from the command to the exit, in seconds; ~ reckoned for 1,000 images by the steady rate.")
    print("Steady: images/s after the first results, of so many images.")
    if figures["others_cores"] > _OTHERS_CORES:
        print(
            f"OTHER PROGRAMS kept {figures['others_cores']:.1f} cores busy meanwhile: measure again on a quiet machine."
        )
    print(
        f"\nmodel alone {figures['model_images_per_s']:.1f}, decoding alone {figures['decode_images_per_s']:.1f}, ",
        end="",
    )
    print(f"bound 1 / (1/model + 1/decode) {figures['bound_images_per_s']:.1f} images/s\n")
    for key, text in (
        ("steady_over_notebook", "steady, over the notebook loop"),
        ("steady_over_bare_loop", "steady, over the bare loop"),
        ("steady_over_bound", "steady, over the bound"),
        ("whole_over_notebook", "whole run of 1,000, over the notebook loop"),
        ("int8_over_notebook", "steady in int8, over the notebook loop"),
    ):
        if figures[key] is not None:
            print(f"{text:45}{figures[key]:8.2f}")
    print(f"{'first committed unit after':45}{figures['first_commit_s']:8.1f} s")
    print(f"{'the same, with nothing cached':45}{figures['first_commit_cold_s']:8.1f} s")
