"""How the stages of a run share a cluster's CPUs and GPUs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial

from pipeline.choices import Decoder, Device, EngineName, Precision
from pipeline.cluster import Resources
from pipeline.engines import choose_engine, cuda_here
from pipeline.errors import ConfigError
from pipeline.run_options import UNIT_SIZE, EmbeddingOptions

#: CPUs of one read task beside a CPU engine: two fit into the half of what the actor leaves that Ray Data lets reading
#: have on a node of two CPUs.
_READ_CPUS_BESIDE_CPU_ENGINE = 0.2
#: Cores of one CPU actor at most, about: on larger nodes there are several, each on cores of its own. An actor's one
#: interpreter spends 0.04 ms on an image, while 32 cores that multiply matrices (AMX) compute some 3,700 images/s.
_CORES_PER_ACTOR = 32
#: What a CPU actor counts for beyond half of its node's CPUs, so that there is one a node.
_OVER_HALF_CPUS = 0.1
#: CPUs of one actor that computes on a GPU: it copies pixels and waits.
_CUDA_ACTOR_CPUS = 0.5
#: Cores that a CPU engine needs for one that decodes for it, at least: a core decodes 700 photographs/s, and computes
#: the embeddings of 25 to 120 (AMX).
_CORES_PER_READER = 4
#: Decoded units that may wait for each GPU, what its actor has begun besides the first included, and besides those that
#: are being read on all cores: it embeds a unit in a tenth of a second, so what many cores decode gets ready in bursts.
_UNITS_WAITING_FOR_A_GPU = 6
#: Threads of a CPU engine at most, for its actor to resize small images: that is work for one thread, some 10,000
#: images/s, and a light network on many cores takes more.
_THREADS_BESIDE_RESIZING = 8
#: Images of a unit where one machine does everything on its CPUs. Several units' pixels are on their way at once there,
#: in the memory of the processes that decode, and in the object store; the engine takes ten seconds for so many images.
_UNIT_SIZE_ON_CPUS = UNIT_SIZE // 2
#: What surrounds the engine, blocks in and out of the object store and columns, takes tens of milliseconds a unit; a
#: fast GPU takes 70. So while it has one unit, the next is made ready and the last one put away. OpenVINO's streams get
#: the next unit's first batches while the last ones of a unit are at work. On a CPU PyTorch has one batch at a time.
_UNITS_AT_ONCE = {("openvino", "cpu"): 2, ("torch", "cpu"): 1, ("torch", "cuda"): 2}
#: Units that are sent to an actor before those are done: it takes the driver 0.2 to 0.3 s to send more.
_UNITS_SENT = {("openvino", "cpu"): 3, ("torch", "cpu"): 2, ("torch", "cuda"): 4}
#: CPUs of one commit task: it mostly waits for storage, and must never queue behind reading. Nor may those whose units
#: were lost with a node, and wait to be computed again, hold up the others.
COMMIT_CPUS = 0.02
#: Commit tasks at once: a node, and at least where nodes may join. Without a limit, Ray Data would set aside as many
#: CPUs for committing as for reading, which would then leave half of a machine with a GPU idle.
_COMMITS_PER_NODE, _COMMITS_WHERE_NODES_JOIN = 16, 64


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What executes the backbone, and how many of it; see `pipeline.run_options.RunOptions`."""

    engine: EngineName = "auto"
    precision: Precision = "auto"
    device: Device = "auto"
    decode: Decoder = "cpu"
    batch_size: int | None = None
    num_actors: int | None = None
    num_threads: int | None = None

    @classmethod
    def of(cls, options: EmbeddingOptions) -> EngineSpec:
        """Return what options ask for."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Layout:
    """How the stages share a cluster.

    Args:
        engine: ``openvino`` or ``torch``.
        device: ``cpu`` or ``cuda``.
        num_actors: Embed actors that the pool starts with.
        max_actors: Embed actors at most, None for as many as the cluster gets room for.
        actor_cpus: CPUs of one embed actor.
        read_cpus: CPUs of one read task.
        max_commits: Commit tasks at once, at most.
        num_threads: CPU threads of one engine.
        units_ahead: Units that may be decoded or being read ahead of each actor.
        units_before: Units that may be decoded or being read, besides one for each actor, until one is embedded.
        units_at_once: Units that an actor works on.
        units_sent: Units that are sent to an actor, those that it works on included.
        max_reads: Read tasks at once, at most; None: as many as there are CPUs for, also on nodes that join.
        leave_small: Whether small images are resized where they are embedded: less travels, see
            `pipeline.preprocessing.decode_and_crop`.
    """

    engine: EngineName
    device: Device
    num_actors: int
    max_actors: int | None
    actor_cpus: float
    read_cpus: float
    max_commits: int
    num_threads: int | None
    units_ahead: int
    units_before: int
    units_at_once: int
    units_sent: int
    max_reads: int | None
    leave_small: bool


def plan_layout(spec: EngineSpec, cluster: Resources, can_grow: bool) -> Layout:
    """Share the cluster among the stages.

    A CUDA actor has a GPU and a part of a CPU; reading has the rest. A CPU actor computes with all cores of its node,
    but counts for a little over half of them: so a node has one, whenever it joins, and reading always has room. The
    operating system shares the cores by need. Nodes of very many cores have several actors, which share these alike.

    Args:
        spec: What was asked for.
        cluster: What there is now.
        can_grow: Whether there may be more later; then what isn't there yet is waited for.

    Raises:
        ConfigError: The cluster has not what was asked for, and never will.
    """
    engine, device = choose_engine(spec.engine, spec.device, cluster.num_gpus > 0 and (can_grow or cuda_here()))
    if spec.decode == "gpu" and device != "cuda":
        raise ConfigError("Asked for --decode gpu, but the backbone runs on CPUs. Use --decode cpu, or --device cuda.")
    actors = room_for_actors(spec, device, cluster)
    layout = partial(
        Layout,
        engine=engine,
        device=device,
        num_actors=actors,
        max_actors=spec.num_actors or (None if can_grow else actors),
        max_commits=max(_COMMITS_PER_NODE * cluster.num_cpu_nodes, _COMMITS_WHERE_NODES_JOIN if can_grow else 0),
        units_at_once=_UNITS_AT_ONCE[engine, device],
        units_sent=_UNITS_SENT[engine, device],
        max_reads=None if can_grow else max(1, int(cluster.num_cpus)),
    )
    if device == "cuda":
        if cluster.num_gpus < 1 and not can_grow:
            raise ConfigError("Asked for --device cuda, but Ray finds no GPU on this machine. Use --device cpu.")
        ahead = _UNITS_WAITING_FOR_A_GPU + int(cluster.num_cpus / max(1.0, cluster.num_gpus))
        return layout(
            actor_cpus=_CUDA_ACTOR_CPUS,
            read_cpus=min(1.0, cluster.cpus_per_node / 4),
            num_threads=None,
            units_ahead=ahead,
            units_before=ahead * actors,
            leave_small=False,
        )
    if cluster.num_cpus < 1 and not can_grow:
        raise ConfigError("Expected at least 1 CPU for work, got none. Start Ray with more CPUs.")
    per_node = -(-actors // cluster.num_cpu_nodes)
    half = cluster.cpus_per_node / 2
    num_threads = spec.num_threads or max(1, int(cluster.cpus_per_node // per_node))
    return layout(
        actor_cpus=round(half + _OVER_HALF_CPUS if per_node == 1 else max(0.1, (half - COMMIT_CPUS) / per_node), 2),
        read_cpus=_READ_CPUS_BESIDE_CPU_ENGINE,
        num_threads=num_threads,
        units_ahead=max(1, int(cluster.cpus_per_node / per_node / _CORES_PER_READER)),
        units_before=cluster.num_cpu_nodes,
        leave_small=num_threads <= _THREADS_BESIDE_RESIZING,
    )


def usual_unit_size(device: Device, alone: bool) -> int:
    """Return how many images a unit has, unless asked for otherwise.

    Args:
        device: What the backbone runs on.
        alone: Whether one machine does everything.
    """
    return _UNIT_SIZE_ON_CPUS if alone and device == "cpu" else UNIT_SIZE


def room_for_actors(spec: EngineSpec, device: Device, cluster: Resources) -> int:
    """Return how many embed actors a cluster has room for: one a GPU, or one for each 32 cores of a node, at least one.

    Where more CPU actors are asked for than there are nodes, they share the nodes.
    """
    if device == "cuda":
        gpus = max(1, int(cluster.num_gpus))
        return min(spec.num_actors or gpus, gpus)
    return spec.num_actors or cluster.num_cpu_nodes * max(1, round(cluster.cpus_per_node / _CORES_PER_ACTOR))
