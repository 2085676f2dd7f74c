"""This machine as a node of a cluster, shared among the stages as a run would share it."""

from __future__ import annotations

from pipeline.cluster import Resources
from pipeline.doctor.estimate import Node
from pipeline.engines import cuda_here
from pipeline.engines.load import available_cores
from pipeline.layout import EngineSpec, Layout, plan_layout
from pipeline.run_options import EmbeddingOptions


def this_node(options: EmbeddingOptions) -> tuple[Node, Layout]:
    """Return what a run on a cluster of this machine alone would have.

    Raises:
        ConfigError: It has not what was asked for.
    """
    spec = EngineSpec.of(options)
    cores = available_cores()
    resources = Resources(num_cpus=cores, num_gpus=_count_gpus(), cpus_per_node=cores, num_cpu_nodes=1)
    layout = plan_layout(spec, resources, can_grow=False)
    return share(cores, layout), layout


def share(cores: int, layout: Layout) -> Node:
    """Return a node of so many cores as a layout shares it: what the actors leave is for read tasks."""
    left = cores - layout.num_actors * layout.actor_cpus
    workers = int(left / layout.read_cpus + 1e-6)  # a sum of tenths may be a little below a whole
    return Node(cores, layout.device == "cuda", layout.num_actors, max(1, min(cores, workers)))


def _count_gpus() -> int:
    if not cuda_here():
        return 0
    import torch

    return torch.cuda.device_count()
