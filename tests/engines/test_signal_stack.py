"""Signals still find a stack after OpenVINO's plugins came and went."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from pipeline.engines.signal_stack import SignalStack, signal_stack, signal_stack_kept

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux")

# Two plugins that go in the order in which they came leave the second one's memory of the first one's stack.
_PROGRAM = """
import contextlib, os, signal, sys
from pipeline.engines.openvino import import_openvino
from pipeline.engines.signal_stack import signal_stack_kept

signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
with signal_stack_kept() if sys.argv[1] == "kept" else contextlib.nullcontext():
    cores = [import_openvino().Core() for _ in range(2)]
    for core in cores:
        core.get_property("CPU", "FULL_DEVICE_NAME")
    del core
    while cores:
        del cores[0]
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signal_stack_kept__a_signal_after_two_plugins_is_handled() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, "kept"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n")


def test_signal_stack_kept__gives_back_what_was_there() -> None:
    before = signal_stack()
    memory = ctypes.create_string_buffer(2**16)
    with signal_stack_kept():
        other = SignalStack(ctypes.addressof(memory), 0, len(memory))
        ctypes.CDLL(None).sigaltstack(ctypes.byref(other), None)
        assert signal_stack().address == ctypes.addressof(memory)
    assert signal_stack().address == before.address
