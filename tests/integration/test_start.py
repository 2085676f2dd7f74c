"""The local Ray cluster: started early or late, it is there when it is needed, and gone afterwards."""

from __future__ import annotations

import subprocess
import sys

from tests.integration.processes import Surroundings

_PROGRAM = """
import contextlib
import os
import tempfile
import threading

import psutil
import ray

from pipeline import cluster


def check_gone():
    assert not ray.is_initialized()
    assert psutil.Process().children() == []
    assert [thread.name for thread in threading.enumerate() if "Ray" in thread.name] == []
    assert "RAY_AUTH_TOKEN" not in os.environ


with cluster.starting():
    assert cluster.is_local()
    for _ in range(2):  # the second one starts a cluster of its own
        with cluster.connect() as connection:
            assert not connection.can_grow
            assert ray.get(ray.remote(lambda: 7).remote()) == 7
        check_gone()
with cluster.starting():
    pass
check_gone()
try:
    with cluster.starting():
        raise KeyError("what went wrong meanwhile")
except KeyError:
    check_gone()
tempfile.tempdir = "/nowhere"
for early in (contextlib.nullcontext, cluster.starting):
    try:
        with early(), cluster.connect():
            raise AssertionError("there is no folder to work in")
    except FileNotFoundError:
        check_gone()
os.environ["RAY_ADDRESS"] = "127.0.0.1:1"
with cluster.starting():
    assert not cluster.is_local()
    check_gone()
print("done")
"""


def test_starting__is_taken_by_connect_or_leaves_nothing(surroundings: Surroundings) -> None:
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, env=surroundings.environment(), capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert surroundings.stray_files() == []


_BARE = """
import psutil
import ray

from pipeline import cluster
from pipeline.local_data import without_helpers

class Same:
    def __call__(self, rows):
        return rows

with cluster.connect():
    with without_helpers():
        assert ray.data.range(10).map_batches(lambda rows: rows).count() == 10
        assert sorted(row["id"] for row in ray.data.range(5).map_batches(Same, concurrency=1).take_all()) == [*range(5)]
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    programs = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    print(sorted(names), [name for name in ("monitor.py", "dashboard.py", "log_monitor.py") if name in str(programs)])
    # Ray's sign for an agent without the dashboard's part
    print([("--minimal" in program) for program in programs if "dashboard/agent.py" in program])
"""


def test_connect__a_cluster_of_one_machine_has_only_what_a_run_needs(surroundings: Surroundings) -> None:
    command = [sys.executable, "-c", _BARE]
    done = subprocess.run(command, env=surroundings.environment(), capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout.splitlines()[-2:]) == (0, ["[] []", "[True]"]), done.stderr


_FREED = """
import time

import numpy as np
import ray

from pipeline import cluster

places = []
with cluster.connect():
    for _ in range(8):
        ref = ray.put(np.zeros(20_000_000, np.uint8))
        places.append(ray.get(ref).ctypes.data)
        del ref
        time.sleep(0.05)
print(len(set(places)))
"""


def test_connect__what_is_freed_is_used_again_at_once(surroundings: Surroundings) -> None:
    command = [sys.executable, "-c", _FREED]
    done = subprocess.run(command, env=surroundings.environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 2  # places of eight blocks in the object store, one after the other


_QUIET = """
import time

import ray
from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback

from pipeline import cluster
from pipeline.local_data import without_helpers

steps = []

class Count(ExecutionCallback):
    def on_execution_step(self, executor):
        steps.append(time.monotonic())

def wait(rows):
    time.sleep(6)
    return rows

with cluster.connect(), without_helpers():
    DataContext.get_current().custom_execution_callback_classes = [Count]
    assert len(ray.data.range(1).map_batches(wait).take_all()) == 1
print(len(steps), len(steps) / (steps[-1] - steps[0]))
"""


def test_without_helpers__the_scheduling_loop_waits_while_nothing_happens(surroundings: Surroundings) -> None:
    command = [sys.executable, "-c", _QUIET]
    done = subprocess.run(command, env=surroundings.environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    steps, steps_per_s = map(float, done.stdout.split())
    assert steps > 3
    assert steps_per_s < 6  # ten, where it never waits longer than a tenth of a second
