"""Run a suite: embed each dataset with each backbone, probe the features, and report all of it in one table."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

from pipeline import __version__, storage
from pipeline.errors import ConfigError, PipelineError, WeightsError, WeightsUnavailable
from pipeline.probe.options import ProbeOptions
from pipeline.probe.suite import DATA, BackboneEntry, Dataset, Suite, load_suite
from pipeline.progress import ProgressCallback
from pipeline.sources.options import SourceOptions

logger = logging.getLogger(__name__)

#: To be raised whenever the same table gives other numbers, besides the package's version: then earlier results are
#: not taken over.
_PROTOCOL_VERSION = 1
DONE, NOT_RUN = "done", "not run"


def probe(
    options: ProbeOptions,
    on_progress: ProgressCallback | None = None,
    after_embedding: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Compare the backbones of a suite on its datasets.

    What can't be run is reported with the reason, and doesn't keep the rest from running. The same call again embeds
    and fits only what is missing or has changed.

    Args:
        options: What to do.
        on_progress: Called a few times a second while images are embedded.
        after_embedding: Called after each table.

    Returns:
        The record, as plain JSON values: ``cells``, one for each dataset and backbone, and where the report lies.

    Raises:
        ConfigError: The suite can't be used.
    """
    started = time.perf_counter()
    suite = _chosen(load_suite(options.suite), options)
    storage.require_folder(options.output, "--output")
    run = _Run(suite, options, on_progress, after_embedding)
    cells = [cell for dataset in suite.datasets for cell in run.cells(dataset)]
    from pipeline.probe.report import write_report

    record = {
        "job": "probe",
        "status": DONE if all(cell["status"] == DONE for cell in cells) else "incomplete",
        **_described(suite),
        "seed": options.seed,
        "cells": cells,
        "num_not_run": sum(cell["status"] == NOT_RUN for cell in cells),
        "seconds": round(time.perf_counter() - started, 1),
    }
    return write_report(record, options)


def _chosen(suite: Suite, options: ProbeOptions) -> Suite:
    names = [dataset.name for dataset in suite.datasets]
    unknown = [name for name in options.only if name not in names]
    if unknown:
        raise ConfigError(f"Expected --only to name datasets of {suite.name} ({', '.join(names)}); got {unknown[0]}.")
    datasets = tuple(dataset for dataset in suite.datasets if not options.only or dataset.name in options.only)
    return suite.model_copy(update={"datasets": datasets})


def _described(suite: Suite) -> dict[str, Any]:
    told = {"name", "title", "metric", "homepage", "citation", "licence", "published"}
    return {
        "suite": suite.name,
        "description": suite.description,
        "published_source": suite.published_source,
        "datasets": [dataset.model_dump(mode="json", include=told) for dataset in suite.datasets],
        "backbones": [
            {**backbone.model_dump(), "weights": storage.redact(backbone.weights)} for backbone in suite.backbones
        ],
    }


class _Run:
    """One run over a suite, and what it has found out about backbones on the way."""

    def __init__(
        self,
        suite: Suite,
        options: ProbeOptions,
        on_progress: ProgressCallback | None,
        after_embedding: Callable[[], None],
    ) -> None:
        self._suite, self._options = suite, options
        self._on_progress, self._after_embedding = on_progress, after_embedding
        self._unusable: dict[str, str] = {}
        self._done = 0

    def cells(self, dataset: Dataset) -> list[dict[str, Any]]:
        """Return the results of a dataset with every backbone."""
        from pipeline.probe.tables import require_source, source_of

        try:
            source = source_of(dataset, self._options)
            require_source(source)
        except Exception as error:  # whatever it is, other datasets can be run
            get = dataset.get.replace(DATA, self._options.data or DATA)
            reason = _reason(error) + (f" To get it: {get}" if get else "")
            return [self._not_run(dataset, backbone, reason) for backbone in self._suite.backbones]
        return [self._cell(dataset, source, backbone) for backbone in self._suite.backbones]

    def _cell(self, dataset: Dataset, source: SourceOptions, backbone: BackboneEntry) -> dict[str, Any]:
        if backbone.name in self._unusable:
            return self._not_run(dataset, backbone, self._unusable[backbone.name])
        logger.info("%s %s with %s.", self._place(), dataset.label, backbone.name)
        try:
            result = self._result(dataset, source, backbone)
        except Exception as error:  # likewise
            if isinstance(error, WeightsError | WeightsUnavailable):
                self._unusable[backbone.name] = _reason(error)  # so that it isn't tried, and waited for, each time
            return self._not_run(dataset, backbone, _reason(error))
        self._done += 1
        value, (low, high) = result["test"][dataset.metric], result["test"]["intervals"][dataset.metric]
        cell = _identity(dataset, backbone) | {
            "status": DONE,
            "reason": None,
            "value": value,
            "low": low,
            "high": high,
            "notes": _notes(dataset, result),
            **result,
        }
        logger.info("%s: %.2f %% [%.2f, %.2f].", dataset.metric, 100 * value, 100 * low, 100 * high)
        return cell

    def _result(self, dataset: Dataset, source: SourceOptions, backbone: BackboneEntry) -> dict[str, Any]:
        from pipeline.probe.tables import content_key, embed_dataset

        options, name = self._options, f"{dataset.name}-{backbone.name}"
        output = storage.absolute(options.output)
        table = storage.join(output, f"tables/{name}")
        try:
            embedded = embed_dataset(source, backbone, table, options, self._on_progress)
        finally:
            self._after_embedding()
        how = [__version__, _PROTOCOL_VERSION, dataset.splits.model_dump(), options.seed]
        key = content_key(table, options, *how)
        store = storage.store_for(output, options.table_storage_options)
        place = storage.join(output, f"results/{name}.json")
        measured = _known(store, place, key)
        if measured is None:
            measured = self._measured(dataset, table, storage.join(output, f"heads/{name}"))
            store.replace(place, (json.dumps({"key": key, **measured}, indent=1) + "\n").encode())
        return {
            **measured,
            "num_rejected": embedded["ledger"]["rejected"],
            "num_removed": embedded["source"]["removed"],
            "num_embedded_now": embedded["new"]["embedded"],
        }

    def _measured(self, dataset: Dataset, table: str, head_uri: str) -> dict[str, Any]:
        from pipeline.heads.artefact import save_head
        from pipeline.heads.parts import free_memory_bytes
        from pipeline.heads.rows import read_rows_of
        from pipeline.probe.protocol import linear_probe
        from pipeline.table import open_table

        options, started = self._options, time.perf_counter()
        rows = read_rows_of(open_table(table, options.table_storage_options))
        memory_bytes = int(options.memory_gb * 2**30) if options.memory_gb else free_memory_bytes()
        head, result = linear_probe(rows, dataset.splits, memory_bytes, options.seed, options.device)
        save_head(head, head_uri, options.table_storage_options)
        named = {part: name for part in ("train", "validation", "test") if (name := getattr(dataset.splits, part))}
        return {
            "table": table,
            "head": head_uri,
            "contract": rows.contract.to_json(),
            "num_labelled": {part: int(rows.of_split(name).sum()) for part, name in named.items()},
            "num_unlabelled": int((~rows.labelled).sum()),
            **result,
            "probe_s": round(time.perf_counter() - started, 3),
        }

    def _not_run(self, dataset: Dataset, backbone: BackboneEntry, reason: str) -> dict[str, Any]:
        logger.warning("%s %s with %s is not run: %s", self._place(), dataset.label, backbone.name, reason)
        self._done += 1
        return _identity(dataset, backbone) | {"status": NOT_RUN, "reason": reason, "value": None, "notes": []}

    def _place(self) -> str:
        return f"[{self._done + 1}/{len(self._suite.datasets) * len(self._suite.backbones)}]"


def _identity(dataset: Dataset, backbone: BackboneEntry) -> dict[str, Any]:
    return {"dataset": dataset.name, "backbone": backbone.name, "metric": dataset.metric}


def _reason(error: Exception) -> str:
    if not isinstance(error, PipelineError | OSError):
        storage.log_traceback(logger, "Nobody expected this; the other results are not affected.")
    return storage.explained(error)


def _known(store: storage.Store, uri: str, key: str) -> dict[str, Any] | None:
    """Return what an earlier run has measured of the same content, if so."""
    if store.info(uri) is None:
        return None
    try:
        content = json.loads(store.read_bytes(uri))
    except ValueError:
        return None
    if not isinstance(content, dict) or content.pop("key", None) != key:
        return None
    return content


def _notes(dataset: Dataset, result: dict[str, Any]) -> list[str]:
    """Return in what a dataset isn't as the suite says, or as one would expect."""
    found, notes = result["num_labelled"], []
    for part, expected in dataset.num_images.items():
        if found.get(part, 0) != expected:
            notes.append(f"expected {expected:,} images for {part}, found {found.get(part, 0):,}")
    if dataset.num_classes not in (None, result["num_classes"]):
        notes.append(f"expected {dataset.num_classes} classes, found {result['num_classes']}")
    for count, what in (
        (result["num_rejected"], "rejected"),
        (result["num_unlabelled"], "without a label"),
        (result["num_removed"], "in the table, but not in the source any more"),
        (result["test"]["num_unknown_class"], "for test of a class that no training image has, counted as wrong"),
    ):
        if count:
            notes.append(f"{count:,} images {what}")
    return notes
