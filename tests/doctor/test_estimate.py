"""From rates to what a run will do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.doctor.estimate import (
    Node,
    Rates,
    actors_wanted,
    core_times,
    cores_wanted,
    estimate,
    expect,
    unit_size_for,
)

CPU_NODE = Node(cores=2, on_gpu=False, actors=1, workers=2)
GPU_NODE = Node(cores=16, on_gpu=True, actors=1, workers=15)
#: 100 images/s of the model on two cores are 20 ms of core time an image; the rest is 5 ms.
RATES = Rates(reading=5000, model=100, writing=8000, read_s=0.001, decode_s=0.003, write_s=0.001)


def test_expect__on_a_cpu_node_the_core_times_add_up() -> None:
    assert core_times(RATES, CPU_NODE) == {"reading": 0.001, "decoding": 0.003, "model": 0.02, "writing": 0.001}
    expected = expect(RATES, CPU_NODE)
    assert expected.images_per_s == pytest.approx(2 / 0.025)
    assert expected.stage == "model"
    assert expected.why == "it takes 80% of the 25 ms of core time that an image costs"


def test_expect__without_reading_and_writing_it_is_the_bound_of_model_and_decoding() -> None:
    rates = replace(RATES, read_s=0, write_s=0)
    decode = CPU_NODE.cores / rates.decode_s
    assert expect(rates, CPU_NODE).images_per_s == pytest.approx(1 / (1 / rates.model + 1 / decode))


def test_expect__on_a_gpu_node_the_slower_of_device_and_preparation() -> None:
    prepared = 15 / 0.004
    slow, fast = replace(RATES, model=1000), replace(RATES, model=9000)
    assert (expect(slow, GPU_NODE).stage, expect(slow, GPU_NODE).images_per_s) == ("model", 1000)
    assert expect(fast, GPU_NODE).stage == "decoding"
    assert expect(fast, GPU_NODE).images_per_s == pytest.approx(prepared)
    assert core_times(fast, GPU_NODE)["model"] == 0


@pytest.mark.parametrize(
    ("change", "stage", "images_per_s"),
    [
        ({"reading": 30}, "reading", 30),
        ({"writing": 30}, "writing", 30),
        ({"decode_s": 0.1}, "decoding", 2 / 0.122),
        ({"read_s": 0.1}, "reading", 2 / 0.124),
        ({"write_s": 0.1}, "writing", 2 / 0.124),
    ],
)
def test_expect__names_the_stage_that_limits(change: dict[str, float], stage: str, images_per_s: float) -> None:
    expected = expect(replace(RATES, **change), CPU_NODE)
    assert (expected.stage, expected.images_per_s) == (stage, pytest.approx(images_per_s))


def test_expect__few_workers_limit_a_node_of_many_cores() -> None:
    node = Node(cores=64, on_gpu=False, actors=1, workers=2)
    expected = expect(replace(RATES, model=5000), node)
    assert (expected.stage, expected.images_per_s) == ("decoding", pytest.approx(2 / 0.004))


def test_cores_wanted__as_many_as_prepare_what_the_devices_embed() -> None:
    assert cores_wanted(replace(RATES, model=8000)) == 32
    assert cores_wanted(replace(RATES, model=8001)) == 33


def test_actors_wanted__no_more_than_have_something_to_do() -> None:
    node = replace(GPU_NODE, actors=8)
    assert actors_wanted(replace(RATES, model=8 * 500), node) == 8
    assert actors_wanted(replace(RATES, model=8 * 2000), node) == 2  # 3,750 images/s are prepared
    assert actors_wanted(replace(RATES, model=8 * 2000, reading=10), node) == 1
    assert actors_wanted(RATES, replace(CPU_NODE, actors=3)) == 3


@pytest.mark.parametrize(
    ("num_images", "num_workers", "unit_size"),
    [(10**8, 2, 1024), (8192, 2, 1024), (8191, 2, 512), (1, 2, 128), (10**8, 30_000, 512)],
)
def test_unit_size_for__every_worker_gets_several_units(num_images: int, num_workers: int, unit_size: int) -> None:
    assert unit_size_for(num_images, num_workers) == unit_size


def test_estimate__time_cost_and_size() -> None:
    common = {"listing_s": 100.0, "reject_share": 0.25, "row_bytes": 8200.0, "units": 36}
    one = estimate(36_000, 10, nodes=1, price_per_hour=None, **common)  # type: ignore[arg-type]
    assert (one.seconds, one.listing_s, one.cost, one.units) == (3700, 100, None, 36)
    assert one.node_hours == pytest.approx(3700 / 3600)
    assert (one.rows, one.table_bytes) == (27_000, 27_000 * 8200)
    four = estimate(36_000, 10, nodes=4, price_per_hour=2.5, **common)  # type: ignore[arg-type]
    assert four.seconds == 1000  # one process lists, four nodes embed
    assert four.node_hours == pytest.approx(4000 / 3600)
    assert four.cost == pytest.approx(2.5 * 4000 / 3600)
