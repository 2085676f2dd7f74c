"""The retry job: take up rejects again, after weights, limits or files were mended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from pipeline import storage
from pipeline.errors import ConfigError, PipelineError, RejectCode, RunIncomplete, TableError, TooManyRejects
from pipeline.options import Options
from pipeline.progress import ProgressCallback
from pipeline.run_options import WorkOptions


class _RetryWhat(Options):
    table: str = Field(description="Folder of the embedding table.")
    code: tuple[RejectCode, ...] = Field((), description="Take up rejects with these codes only; unset: all.")
    weights: str | None = Field(
        None, description="Weights of the backbone; unset: those that the table's contract names."
    )


class RetryOptions(WorkOptions, _RetryWhat):
    """Take up a table's rejects again, and what else is pending in it. The sources are those that its plans name."""


def retry(options: RetryOptions, on_progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Promise the rejects of a table again, in new units, and embed them.

    Args:
        options: What to do.
        on_progress: Called a few times a second while the work goes on.

    Returns:
        The record: that of the run for each source, and the sums.

    Raises:
        ConfigError: It can't be done as asked.
        RunIncomplete: Images are pending; the same call again goes on.
        TooManyRejects: All images are done, but too many of them are rejects.
    """
    # Ray and PyTorch take seconds to import: not before the options are known to be right.
    from pipeline.runs import run
    from pipeline.sources.detect import reopened
    from pipeline.table import open_table, plan_retry, read_info
    from pipeline.targets import embedding_target, table_backbone

    table = open_table(options.table, options.table_storage_options)
    info = read_info(table)
    if info.kind != "embeddings":
        raise TableError(f"Expected a table of embeddings at {table.uri}, got one of {info.kind}. Check --table.")
    backbone = table_backbone(table, info, options.weights, options.cache_dir, options.table_storage_options)
    target = embedding_target(table, info, backbone)
    sums = _Sums(table.uri, info.contract.to_json())
    for source, planned in plan_retry(table, info.digest, [code.value for code in options.code]).items():
        opened_with = next(plan.opened_with for plan in reversed(planned.plans) if plan.source == source)
        if not opened_with:
            raise ConfigError(
                f"The plans of {storage.redact(source)} don't say how it is opened, since another version of this "
                "package wrote them. Run jobs.embed with that source again."
            )
        try:
            sums.add(run(options, reopened(opened_with), target, lambda planned=planned: planned, on_progress))  # type: ignore[misc]
        except (RunIncomplete, TooManyRejects) as error:
            sums.add(error.record or {}, error)
    return sums.record()


@dataclass
class _Sums:
    """What the runs over a table's sources add up to."""

    table: str
    contract: dict[str, Any]
    runs: list[dict[str, Any]] = field(default_factory=list)
    error: PipelineError | None = None

    def add(self, record: dict[str, Any], error: PipelineError | None = None) -> None:
        self.runs.append(record)
        if self.error is None or isinstance(error, RunIncomplete):
            self.error = error or self.error

    def record(self) -> dict[str, Any]:
        """Return the record of all runs.

        Raises:
            RunIncomplete: Images are pending.
            TooManyRejects: A source has too many rejects.
        """
        names = ("planned", "embedded", "rejected", "pending", "reused")
        record = {
            "job": "retry",
            "status": "done" if self.error is None else (self.error.record or {}).get("status", "failed"),
            "table": self.table,
            "contract": self.contract,
            "again": sum(run["source"]["again"] for run in self.runs),
            "ledger": {name: sum(run["ledger"][name] for run in self.runs) for name in names},
            "new": {name: sum(run["new"][name] for run in self.runs) for name in ("embedded", "reused", "rejected")},
            "runs": self.runs,
        }
        if self.error is not None:
            self.error.record = record
            raise self.error
        return record
