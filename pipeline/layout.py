"""How the stages of a run share a cluster's CPUs and GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.cluster import Resources
from pipeline.engines import choose_engine, cuda_here
from pipeline.errors import ConfigError
from pipeline.options import Device, EngineName, Precision

#: CPUs of one read task beside a CPU engine: two to a core, since each waits for storage part of its time.
_READ_CPUS_BESIDE_CPU_ENGINE = 0.5
#: CPUs of one actor that computes on a GPU: it copies pixels and waits.
_CUDA_ACTOR_CPUS = 0.5
#: CPUs of one commit task: it mostly waits for storage, and must never queue behind reading.
COMMIT_CPUS = 0.1


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What executes the backbone, and how many of it; see `pipeline.run_options.RunOptions`."""

    engine: EngineName = "auto"
    precision: Precision = "auto"
    device: Device = "auto"
    batch_size: int | None = None
    num_actors: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """How the stages share a cluster.

    Args:
        engine: ``openvino`` or ``torch``.
        device: ``cpu`` or ``cuda``.
        max_actors: Embed actors at most, None for as many as the cluster has or gets GPUs. The pool starts with one.
        actor_cpus: CPUs of one embed actor.
        read_cpus: CPUs of one read task.
        num_threads: CPU threads of one engine.
    """

    engine: EngineName
    device: Device
    max_actors: int | None
    actor_cpus: float
    read_cpus: float
    num_threads: int | None


def plan_layout(spec: EngineSpec, cluster: Resources, can_grow: bool) -> Layout:
    """Share the cluster among the stages.

    A CUDA actor has a GPU and a part of a CPU; reading has the rest. A CPU actor computes with all cores of its node,
    but counts for half of them, so that reading always has room: the operating system shares the cores by need.

    Args:
        spec: What was asked for.
        cluster: What there is now.
        can_grow: Whether there may be more later; then what isn't there yet is waited for.

    Raises:
        ConfigError: The cluster has not what was asked for, and never will.
    """
    engine, device = choose_engine(spec.engine, spec.device, cluster.num_gpus > 0 and (can_grow or cuda_here()))
    if device == "cuda":
        if cluster.num_gpus < 1 and not can_grow:
            raise ConfigError("Asked for --device cuda, but Ray finds no GPU on this machine. Use --device cpu.")
        growing = None if can_grow else max(1, int(cluster.num_gpus))
        read_cpus = min(1.0, cluster.cpus_per_node / 4)
        return Layout(engine, device, spec.num_actors or growing, _CUDA_ACTOR_CPUS, read_cpus, num_threads=None)
    actors = spec.num_actors or cluster.num_cpu_nodes
    if cluster.num_cpus < 1 and not can_grow:
        raise ConfigError("Expected at least 1 CPU for work, got none. Start Ray with more CPUs.")
    per_node = -(-actors // cluster.num_cpu_nodes)
    cpus = max(0.3, cluster.cpus_per_node / 2 / per_node - COMMIT_CPUS)
    threads = max(1, int(cluster.cpus_per_node // per_node))
    return Layout(engine, device, actors, cpus, _READ_CPUS_BESIDE_CPU_ENGINE, threads)
