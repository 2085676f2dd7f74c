"""The comparison: rows are datasets, columns backbones; as Markdown, Parquet, JSON and a plot."""

from __future__ import annotations

import io
import json
import logging
import os
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.probe.options import ProbeOptions

logger = logging.getLogger(__name__)

_METRICS = {"top1": "top-1", "mean_per_class": "mean per class"}
_PROTOCOL = (
    "Features are frozen. A logistic regression (L-BFGS, at most 1,000 iterations, on standardised features) is fitted "
    "for values of C from 1e-6 to 1e6, the best on validation is chosen by a parametric binary search down to 8 values "
    "a decade, and the final fit is to train and validation together (Radford et al. 2021, appendix A.3). Numbers are "
    "percent on test, with the 95 % bootstrap interval over the test images."
)
_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("backbone", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("metric", pa.string()),
        *((name, pa.float64()) for name in ("value", "low", "high", "top1", "top5", "mean_per_class", "macro_f1", "C")),
        *((name, pa.int64()) for name in ("num_train", "num_validation", "num_test", "num_classes")),
        ("weights", pa.string()),
        ("contract_digest", pa.string()),
        ("notes", pa.list_(pa.string())),
    ]
)


def write_report(record: dict[str, Any], options: ProbeOptions) -> dict[str, Any]:
    """Write ``SUITE.md``, ``SUITE.parquet``, ``SUITE.png`` and ``SUITE.json``, and return the record with their URIs.

    Without matplotlib there is no plot, and the record says ``None`` for it.
    """
    output = storage.absolute(options.output)
    store = storage.store_for(output, options.table_storage_options)
    place = storage.join(output, record["suite"])
    picture = plot(record, options.cache_dir)
    if picture is not None:
        store.replace(f"{place}.png", picture)
    buffer = io.BytesIO()
    pq.write_table(as_table(record), buffer)
    store.replace(f"{place}.parquet", buffer.getvalue())
    image = None if picture is None else f"{record['suite']}.png"
    store.replace(f"{place}.md", markdown(record, image).encode())
    uris = {kind: f"{place}.{kind}" for kind in ("md", "parquet", "json")}
    record = {**record, "report": {**uris, "png": None if picture is None else f"{place}.png"}}
    store.replace(f"{place}.json", (json.dumps(record, indent=1) + "\n").encode())
    return record


def comparison(record: dict[str, Any]) -> str:
    """Return the table of results in Markdown: our columns, then the published ones."""
    cells = {(cell["dataset"], cell["backbone"]): cell for cell in record["cells"]}
    published = list(dict.fromkeys(name for dataset in record["datasets"] for name in dataset["published"]))
    names = [_heading(backbone) for backbone in record["backbones"]]
    rows = [["dataset", "metric", *names, *(f"{name} (published)" for name in published)]]
    columns = [
        [_percent(cells[dataset["name"], backbone["name"]]) for dataset in record["datasets"]]
        for backbone in record["backbones"]
    ]
    columns += [[dataset["published"].get(name) for dataset in record["datasets"]] for name in published]
    for dataset in record["datasets"]:
        ours = [_shown(cells[dataset["name"], backbone["name"]]) for backbone in record["backbones"]]
        theirs = [f"{dataset['published'][name]:.2f}" if name in dataset["published"] else "" for name in published]
        rows.append([dataset["title"] or dataset["name"], _METRICS[dataset["metric"]], *ours, *theirs])
    if len(record["datasets"]) > 1:
        means = [_mean(column) for column in columns]
        rows.append([f"mean of {len(record['datasets'])}", "", *means])
    return _table(rows)


def markdown(record: dict[str, Any], image: str | None = None) -> str:
    """Return the whole report in Markdown.

    Args:
        record: As `pipeline.probe.run.probe` returns it.
        image: Name of the plot, beside the report.
    """
    done = [cell for cell in record["cells"] if cell["status"] == "done"]
    missing = [cell for cell in record["cells"] if cell["status"] != "done"]
    parts = [f"# Linear probe: {record['suite']}", record["description"], comparison(record)]
    if image:
        parts.append(f"![]({image})")
    if any(dataset["published"] for dataset in record["datasets"]):
        parts.append(f"Published numbers: <{record['published_source']}>.")
    if missing:
        parts += ["## Not run", _list(f"{_what(cell)}: {cell['reason']}" for cell in missing)]
    notes = [f"{_what(cell)}: {note}" for cell in done for note in cell["notes"]]
    if notes:
        parts += ["## Not as expected", _list(notes)]
    parts += ["## Protocol", _PROTOCOL]
    if done:
        parts.append(_table([_HOW, *(_how(cell) for cell in done)]))
    if any(cell["held_out"] for cell in done):
        parts.append("\\* held out of train, by content")
    parts += ["## Datasets", _list(_about(dataset) for dataset in record["datasets"])]
    return "\n\n".join(part for part in parts if part) + "\n"


_HOW = ["dataset", "backbone", "C", "train", "validation", "test", "classes", "weights"]


def _how(cell: dict[str, Any]) -> list[str]:
    """Return how a number came about; a star marks what was held out of train."""
    counts = [
        f"{cell['num_rows'][part]:,}{'*' if part in cell['held_out'] else ''}"
        for part in ("train", "validation", "test")
    ]
    contract = cell["contract"]
    weights = f"{contract['weights']} ({contract['weights_sha256'][:12]})"
    return [cell["dataset"], cell["backbone"], f"{cell['C']:.3g}", *counts, f"{cell['num_classes']:,}", weights]


def as_table(record: dict[str, Any]) -> pa.Table:
    """Return one row for each dataset and backbone; numbers are shares, 0 to 1."""
    rows = []
    for cell in record["cells"]:
        test, counts = cell.get("test", {}), cell.get("num_rows", {})
        row = {name: cell.get(name) for name in _SCHEMA.names} | {
            name: test.get(name) for name in ("top1", "top5", "mean_per_class", "macro_f1")
        }
        row |= {f"num_{part}": counts.get(part) for part in ("train", "validation", "test")}
        contract = cell.get("contract", {})
        rows.append(row | {"weights": contract.get("weights"), "contract_digest": contract.get("digest")})
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def plot(record: dict[str, Any], cache_dir: str) -> bytes | None:
    """Return the comparison as a PNG: a mark for each number, with its interval; None without matplotlib.

    Args:
        record: As for `markdown`.
        cache_dir: Where matplotlib keeps what it knows of fonts: not in the home folder.
    """
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(os.path.expanduser(cache_dir), "matplotlib"))
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("There is no plot, for want of matplotlib. Run: pip install 'vision-embedding-pipeline[plot]'")
        return None
    datasets = [dataset["name"] for dataset in record["datasets"]]
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(datasets)), layout="constrained")
    axes = figure.add_subplot()
    published = list(dict.fromkeys(name for dataset in record["datasets"] for name in dataset["published"]))
    num_columns = len(record["backbones"]) + len(published)
    shifts = [(i + 1) / (num_columns + 1) - 0.5 for i in range(num_columns)]  # of the marks within a dataset's row
    for shift, backbone in zip(shifts, record["backbones"], strict=False):
        cells = [cell for cell in record["cells"] if cell["backbone"] == backbone["name"] and cell["status"] == "done"]
        values = [100 * cell["value"] for cell in cells]
        errors = [[100 * abs(cell["value"] - cell[side]) for cell in cells] for side in ("low", "high")]
        heights = [datasets.index(cell["dataset"]) + 0.7 * shift for cell in cells]
        axes.errorbar(values, heights, xerr=errors, fmt="o", capsize=3, label=_heading(backbone))
    for shift, name in zip(shifts[len(record["backbones"]) :], published, strict=True):
        known = [(i, dataset["published"]) for i, dataset in enumerate(record["datasets"])]
        marks = [(values[name], i + 0.7 * shift) for i, values in known if name in values]
        axes.plot(*zip(*marks, strict=True), "D", markerfacecolor="none", label=f"{name} (published)")
    axes.set_yticks(range(len(datasets)), [dataset["title"] or dataset["name"] for dataset in record["datasets"]])
    axes.set_ylim(len(datasets) - 0.5, -0.5)
    axes.set_xlabel("percent on test, with 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _heading(backbone: dict[str, Any]) -> str:
    return f"{backbone['name']}{' (RANDOM weights)' if backbone['weights'].startswith('random:') else ''}"


def _what(cell: dict[str, Any]) -> str:
    return f"{cell['dataset']}, {cell['backbone']}"


def _percent(cell: dict[str, Any]) -> float | None:
    return None if cell["value"] is None else 100 * float(cell["value"])


def _shown(cell: dict[str, Any]) -> str:
    if cell["status"] != "done":
        return "not run"
    return f"{100 * cell['value']:.1f} [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"


def _mean(values: list[float | None]) -> str:
    """Return the mean of a column, nothing where a number is missing: it would be that of other datasets."""
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if len(known) == len(values) else ""


def _about(dataset: dict[str, Any]) -> str:
    licence = f"Licence: {dataset['licence']}" if dataset["licence"] else ""
    homepage = f"<{dataset['homepage']}>" if dataset["homepage"] else ""
    told = [part.rstrip(".") for part in (dataset["citation"], homepage, licence) if part]
    return ". ".join([f"**{dataset['title'] or dataset['name']}**", *told]) + "."


def _table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(_escaped(value) for value in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _list(items: Any) -> str:
    return "\n".join(f"- {_escaped(item)}" for item in items)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
