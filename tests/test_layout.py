"""How the stages share a cluster."""

from __future__ import annotations

import pytest

from pipeline.choices import Device, EngineName
from pipeline.cluster import Resources
from pipeline.errors import ConfigError
from pipeline.layout import COMMIT_CPUS, EngineSpec, plan_layout, usual_unit_size

LAPTOP = Resources(num_cpus=2, num_gpus=0, cpus_per_node=2, num_cpu_nodes=1)
CPU_CLUSTER = Resources(num_cpus=64, num_gpus=0, cpus_per_node=16, num_cpu_nodes=4)
GPU_CLUSTER = Resources(num_cpus=64, num_gpus=8, cpus_per_node=32, num_cpu_nodes=2)
HEAD_ONLY = Resources(num_cpus=0, num_gpus=0, cpus_per_node=1, num_cpu_nodes=1)


def test_plan_layout__a_laptop_has_one_actor_and_room_to_read_and_commit() -> None:
    layout = plan_layout(EngineSpec(), LAPTOP, can_grow=False)
    assert (layout.engine, layout.device, layout.max_actors, layout.num_threads) == ("openvino", "cpu", 1, 2)
    assert round(layout.actor_cpus + 2 * layout.read_cpus + COMMIT_CPUS, 4) <= 2


def test_plan_layout__cpu_nodes_have_one_actor_each_with_all_cores() -> None:
    layout = plan_layout(EngineSpec(), CPU_CLUSTER, can_grow=True)
    assert (layout.max_actors, layout.num_threads) == (None, 16)  # one on each node that joins, too
    assert layout.actor_cpus * 2 > 16  # no two fit on a node
    assert plan_layout(EngineSpec(), CPU_CLUSTER, can_grow=False).max_actors == 4


def test_plan_layout__nodes_of_many_cores_have_several_actors_each() -> None:
    large = Resources(num_cpus=256, num_gpus=0, cpus_per_node=128, num_cpu_nodes=2)
    layout = plan_layout(EngineSpec(), large, can_grow=False)
    assert (layout.num_actors, layout.max_actors, layout.num_threads) == (8, 8, 32)
    assert 4 * layout.actor_cpus < 64 <= 5 * layout.actor_cpus  # half of a node is left for reading
    assert plan_layout(EngineSpec(num_threads=8), large, can_grow=False).num_threads == 8


def test_plan_layout__small_images_are_resized_where_they_are_embedded_unless_that_feeds_much() -> None:
    def leave_small(cluster: Resources, **options: object) -> bool:
        return plan_layout(EngineSpec(**options), cluster, can_grow=False).leave_small  # type: ignore[arg-type]

    assert leave_small(LAPTOP)
    assert not leave_small(CPU_CLUSTER)
    assert leave_small(CPU_CLUSTER, num_threads=8)
    assert not leave_small(GPU_CLUSTER)


def test_plan_layout__a_node_of_one_cpu_has_room_to_read() -> None:
    small = Resources(num_cpus=3, num_gpus=0, cpus_per_node=1, num_cpu_nodes=3)
    layout = plan_layout(EngineSpec(), small, can_grow=True)
    assert layout.actor_cpus * 2 > 1
    assert round(layout.actor_cpus + layout.read_cpus + COMMIT_CPUS, 4) <= 1


def test_plan_layout__more_actors_than_nodes_share_the_cores() -> None:
    layout = plan_layout(EngineSpec(num_actors=8), CPU_CLUSTER, can_grow=True)
    assert (layout.max_actors, layout.num_threads) == (8, 8)
    assert 2 * layout.actor_cpus < 8


def test_plan_layout__gpus_have_one_actor_each() -> None:
    layout = plan_layout(EngineSpec(), GPU_CLUSTER, can_grow=True)
    assert (layout.engine, layout.device, layout.max_actors) == ("torch", "cuda", None)
    assert plan_layout(EngineSpec(device="cuda"), GPU_CLUSTER, can_grow=False).max_actors == 8
    assert plan_layout(EngineSpec(engine="openvino"), GPU_CLUSTER, can_grow=True).device == "cpu"


@pytest.mark.parametrize(
    ("engine", "cluster", "at_once", "sent"),
    [("auto", GPU_CLUSTER, 2, 4), ("openvino", LAPTOP, 2, 3), ("torch", LAPTOP, 1, 2)],
)
def test_plan_layout__an_actor_has_a_unit_ready_while_another_is_embedded(
    engine: EngineName, cluster: Resources, at_once: int, sent: int
) -> None:
    layout = plan_layout(EngineSpec(engine=engine), cluster, can_grow=cluster is GPU_CLUSTER)
    assert (layout.units_at_once, layout.units_sent) == (at_once, sent)


def test_plan_layout__reading_has_all_cores_but_one_beside_a_gpu() -> None:
    node = Resources(num_cpus=16, num_gpus=1, cpus_per_node=16, num_cpu_nodes=1)
    layout = plan_layout(EngineSpec(device="cuda"), node, can_grow=False)
    assert (node.num_cpus - layout.actor_cpus - layout.max_commits * COMMIT_CPUS) // layout.read_cpus == 15


def test_plan_layout__only_a_gpu_decodes_for_a_gpu() -> None:
    with pytest.raises(ConfigError, match="--decode gpu, but the backbone runs on CPUs"):
        plan_layout(EngineSpec(decode="gpu"), LAPTOP, can_grow=False)
    assert plan_layout(EngineSpec(decode="gpu"), GPU_CLUSTER, can_grow=True).device == "cuda"


def test_plan_layout__a_gpu_with_one_cpu_leaves_room_to_read() -> None:
    small = Resources(num_cpus=1, num_gpus=1, cpus_per_node=1, num_cpu_nodes=1)
    layout = plan_layout(EngineSpec(device="cuda"), small, can_grow=False)
    assert layout.actor_cpus + layout.read_cpus + COMMIT_CPUS <= 1


def test_plan_layout__waits_for_nodes_only_where_they_may_come() -> None:
    assert plan_layout(EngineSpec(device="cuda", num_actors=8), HEAD_ONLY, can_grow=True).max_actors == 8
    with pytest.raises(ConfigError, match="no GPU"):
        plan_layout(EngineSpec(device="cuda"), LAPTOP, can_grow=False)
    with pytest.raises(ConfigError, match="at least 1 CPU"):
        plan_layout(EngineSpec(), HEAD_ONLY, can_grow=False)


@pytest.mark.parametrize(
    ("device", "alone", "unit_size"), [("cpu", True, 512), ("cpu", False, 1024), ("cuda", True, 1024)]
)
def test_usual_unit_size__smaller_where_one_machine_does_everything_on_its_cpus(
    device: Device, alone: bool, unit_size: int
) -> None:
    assert usual_unit_size(device, alone) == unit_size
