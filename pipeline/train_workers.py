"""Train a head in several processes of a Ray cluster, each with a share of the rows: Ray Train."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from pipeline import cluster, storage
from pipeline.cluster import Connection, Resources
from pipeline.errors import ConfigError, PipelineError, TransientError
from pipeline.heads import Head, TrainOptions, fit_head
from pipeline.heads.checkpoint import NoCheckpoint
from pipeline.heads.group import Workers
from pipeline.heads.parts import free_memory_bytes
from pipeline.heads.shares import share_task
from pipeline.heads.task import FitTask
from pipeline.ray_details import replaced

logger = logging.getLogger(__name__)

#: Times that a group of workers that failed is started again; it goes on from the checkpoint in the head's folder.
_RESTARTS = 3


@dataclass
class WorkersFit:
    """Fits heads in workers, for `pipeline.heads.train`: a context, whose cluster is there from the first fit on.

    Args:
        options: How; ``num_workers`` of them, each with a GPU where ``use_gpu``.
    """

    options: TrainOptions
    _connection: Connection | None = field(default=None, init=False)
    _stack: ExitStack = field(default_factory=ExitStack, init=False)

    def __enter__(self) -> WorkersFit:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._connection = None

    def __call__(self, task: FitTask) -> Head:
        """Fit the same head as `fit_head` would here, but for rounding and the order of rows.

        Raises:
            ConfigError: There is nothing to train, or the cluster is too small.
            TransientError: Workers failed again and again.
        """
        if task.options.kind == "knn":
            raise ConfigError("Expected --num-workers 0 for --kind knn, which keeps the rows and trains nothing.")
        if self._connection is None:
            self._connection = self._stack.enter_context(cluster.connect(self.options.verbose))
        with tempfile.TemporaryDirectory() as folder:
            cpus = _cpus_each(self.options, cluster.resources(), self._connection)
            logger.info("Training in %d workers of %d CPUs each.", self.options.num_workers, cpus)
            return self._fit(task, cpus, folder)

    def _fit(self, task: FitTask, cpus: int, folder: str) -> Head:
        options = self.options.model_copy(
            update={
                "table": storage.absolute(self.options.table),  # workers have working directories of their own
                "head": storage.absolute(self.options.head),
                "device": "cuda" if self.options.use_gpu else "cpu",
                "seed": task.options.seed,
            }
        )
        each = {"CPU": float(cpus)} | ({"GPU": 1.0} if options.use_gpu else {})
        trainer = TorchTrainer(
            _work,  # type: ignore[arg-type]  # which forgets that a value may be returned
            train_loop_config={
                "options": options.model_dump(),
                "start": task.start,
                "subset": task.subset,
                "keep": not isinstance(task.checkpoint, NoCheckpoint),
                "threads": cpus,
            },
            # Sums over rows that are on no GPU, and bytes, go by gloo in either case.
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if options.use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=options.num_workers, use_gpu=options.use_gpu, resources_per_worker=each
            ),
            run_config=RunConfig(  # type: ignore[arg-type]  # the same
                name="train",
                storage_path=folder,  # where Ray would keep what is reported to it: nothing is
                failure_config=FailureConfig(max_failures=_RESTARTS),
                logging_config=LoggingConfig(log_level="INFO" if options.verbose else "CRITICAL"),
            ),
        )
        try:
            # Ctrl-C ends a job as it ends others: Ray's handler would wait for the workers, and stay afterwards.
            with replaced((DataParallelTrainer, "_register_sigint_handler", lambda *_: None)):
                result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _explained(error) from error
        except RayError as error:
            raise TransientError(f"The training's controller failed ({error}). Run the same command again.") from error
        head = result.return_value  # type: ignore[attr-defined]  # of the older Result that the package declares
        assert isinstance(head, Head)
        return head


def _cpus_each(options: TrainOptions, has: Resources, connection: Connection) -> int:
    """Return the CPUs of each worker: its share of a node.

    Raises:
        ConfigError: The cluster is too small, and no node can join.
    """
    wanted = options.num_workers
    gpus = wanted if options.use_gpu else 0
    if not connection.can_grow and (wanted > has.num_cpus or gpus > has.num_gpus):
        raise ConfigError(
            f"Expected a CPU{' and a GPU' if gpus else ''} for each of --num-workers {wanted}, got {has.num_cpus:g} "
            f"CPUs and {has.num_gpus:g} GPUs. Ask for fewer, or set RAY_ADDRESS to a larger cluster."
        )
    on_a_node = -(-wanted // has.num_cpu_nodes)
    return max(1, int(has.cpus_per_node) // on_a_node)


def _explained(error: ray.train.TrainingFailedError) -> PipelineError:
    """Return what a failed training is for the user: a worker's own error, where it is one of the project's."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause: BaseException | None = getattr(failure, "_base_exc", failure)
        if isinstance(cause, PipelineError):
            return cause
    texts = [f"worker {rank}: {str(failure).strip().splitlines()[-1]}" for rank, failure in failures.items()]
    return TransientError(
        f"The training's workers failed {_RESTARTS + 1} times, at last: {'; '.join(texts) or error}. Nothing that a "
        "checkpoint holds is lost: run the same command again to go on, or with --verbose to see Ray's log."
    )


def _work(config: dict[str, Any]) -> Head | None:
    """Fit in one of the workers, and return the head from the first."""
    torch.set_num_threads(config["threads"])
    options, group = TrainOptions(**config["options"]), Workers()
    on_this_node = ray.train.get_context().get_local_world_size()
    asked = options.memory_gb
    memory_bytes = int(asked * 2**30) if asked else free_memory_bytes() // on_this_node
    task = share_task(options, group, memory_bytes, config["start"], config["subset"], config["keep"])
    head = fit_head(task)
    return head if group.rank == 0 else None
