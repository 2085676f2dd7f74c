"""Actors on one node keep to cores of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.cores import shares

_PROGRAM = """
import os, sys
from pipeline.cores import keep_to_a_share
print(keep_to_a_share(1), sorted(os.sched_getaffinity(0)), flush=True)
sys.stdin.read()
"""


def test_shares__are_neighbours_and_an_only_one_is_none() -> None:
    assert shares(list(range(8)), 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert shares([0, 1, 2, 4, 5, 6, 7], 3) == [[0, 1, 2], [4, 5, 6]]  # the last one is free for all
    assert shares([0, 1], 2) == []
    assert shares([0, 1, 2], 2) == []
    assert shares([0, 1], 4) == []


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores on Linux"
)
def test_keep_to_a_share__no_two_processes_have_the_same() -> None:
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-c", _PROGRAM]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(len(cores) + 1)
    ]
    try:
        told = sorted(process.stdout.readline().strip() for process in processes if process.stdout)
        assert told == sorted([*(f"[{core}] [{core}]" for core in cores), f"None {cores}"])
    finally:
        for process in processes:
            process.communicate()
    again = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert again.stdout.strip() == f"[{cores[0]}] [{cores[0]}]"  # the claims ended with their processes
