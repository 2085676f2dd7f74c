"""Metrics and ledgers as lines for people."""

from __future__ import annotations

from typing import Any

#: Classes up to which each has a line.
CLASS_LINES = 50


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


def before_after_lines(report: dict[str, Any]) -> list[str]:
    """Return what became of an older head's classes when it was trained again with more of them."""
    lines = []
    if report["old_rows"]:
        low, high = report["change_interval"]
        lines.append(
            f"  old classes ({len(report['old_classes'])}, {report['old_rows']} {report['part']} rows): top-1 "
            f"{report['old_top1_before']:.4f} before, {report['old_top1_after']:.4f} after "
            f"({100 * report['change']:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}])"
        )
    if report["new_rows"]:
        names = ", ".join(report["new_classes"][:10]) + (", ..." if len(report["new_classes"]) > 10 else "")
        lines.append(f"  new classes ({names}; {report['new_rows']} rows): top-1 {report['new_top1']:.4f}")
        lines.append(f"  {_confused('old taken for new', report['old_as_new'])}")
        lines.append(f"  {_confused('new taken for old', report['new_as_old'])}")
    if report["dropped_classes"]:
        lines.append(f"  classes that are gone: {', '.join(report['dropped_classes'][:10])}")
    if report["not_embedded_again"] is not None:
        spared = f", {report['seconds_saved']:g} s saved" if report["seconds_saved"] is not None else ""
        lines.append(f"  images: {report['images_new']} new, {report['not_embedded_again']} not embedded again{spared}")
    return lines


def _confused(what: str, found: dict[str, Any]) -> str:
    pairs = ", ".join(f"{pair['count']} {pair['true']} as {pair['predicted']}" for pair in found["pairs"][:3])
    return f"{what}: {found['count']}" + (f" ({pairs})" if pairs else "")


def class_lines(metrics: dict[str, Any]) -> list[str]:
    """Return one line a class; of very many, those of the lowest F1."""
    values = metrics["per_class"]
    names = list(values)
    if len(names) > CLASS_LINES:
        names = sorted(names, key=lambda name: values[name]["f1"])[:CLASS_LINES]
    width = max(len(name) for name in ("class", *names))
    lines = [f"{'class':>{width}}  precision  recall      f1  support"]
    for name in names:
        value = values[name]
        lines.append(
            f"{name:>{width}}  {value['precision']:9.4f}  {value['recall']:6.4f}  {value['f1']:6.4f}  "
            f"{value['support']:7d}"
        )
    if len(names) < len(values):
        lines.append(f"These are the {len(names)} classes of the lowest F1 of {len(values)}; --json gives all.")
    return lines


def leak_lines(leaks: dict[str, Any]) -> list[str]:
    """Return an example of each kind of leak, and what is reached without the rows concerned."""
    lines = []
    for between in leaks["between"]:
        for kind, title in (("exact", "exact copies"), ("near", "near duplicates")):
            for example in between[kind]["examples"][:1]:
                cosine = f" (cosine {example['cosine']:.4f})" if "cosine" in example else ""
                pairs = zip(between["parts"], example["images"], strict=True)
                lines.append(f"{title}{cosine}: {', '.join(_image(image, part) for part, image in pairs)}")
    for conflict in leaks["label_conflicts"]:
        images = conflict["examples"][0]["images"]
        lines.append(f"different labels: {', '.join(_image(image, conflict['part']) for image in images)}")
    for name, found in leaks["without_leaked"].items():
        low, high = found["interval"]
        lines.append(
            f"{name} without rows that are in an earlier part, too: top-1 {found['top1']:.4f} [{low:.4f}, {high:.4f}] "
            f"({found['num_rows']} rows)"
        )
    return [f"{'':>10}  {line}" for line in lines]


def _image(image: dict[str, str], part: str) -> str:
    return f"{image['uri']} ({part}, {image['label']})"


def curve_lines(curve: dict[str, Any]) -> list[str]:
    """Return a learning curve as a table."""
    by_share = "share" in curve["points"][0]
    lines = [
        f"Learning curve, on {curve['on']}:",
        f"{'share' if by_share else 'shots':>10}    rows   top-1  95 % interval",
    ]
    for point in curve["points"]:
        size = f"{100 * point['share']:g} %" if by_share else str(point["shots"])
        low, high = point["interval"]
        lines.append(f"{size:>10} {point['num_rows']:7d}  {point['top1']:.4f}  [{low:.4f}, {high:.4f}]")
    return lines


def seed_lines(seeds: dict[str, Any]) -> list[str]:
    """Return mean and spread of each part's headline metrics over several seeds."""
    titles = {"top1": "top-1", "top5": "top-5", "macro_f1": "macro F1", "log_loss": "log loss", "ece": "ECE"}
    lines = [f"Over {len(seeds['seeds'])} seeds, mean ± standard deviation [least, greatest]:"]
    for name, metrics in seeds["metrics"].items():
        values = (
            f"{title} {spread['mean']:.4f} ± {spread['std']:.4f} [{spread['min']:.4f}, {spread['max']:.4f}]"
            for key, title in titles.items()
            if (spread := metrics[key]) is not None
        )
        lines.append(f"{name:>10}: {', '.join(values)}")
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
