"""Keep a thread's alternate signal stack as it is, whatever OpenVINO does to it.

OpenVINO's CPU plugin installs a stack for signals where it is made, and puts the one before back when it goes. Where
several go in another order than they came, as NNCF's do, a thread is left with a stack that is not there any more; and
the next signal, such as Ctrl-C, ends the process. Python's handlers use the alternate stack (SA_ONSTACK).
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator


class SignalStack(ctypes.Structure):
    """Linux's ``stack_t``."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("num_bytes", ctypes.c_size_t))


def signal_stack() -> SignalStack:
    """Return this thread's alternate signal stack, as Linux tells of it."""
    stack = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Give this thread the signal stack back that it had before a block, on Linux."""
    if sys.platform != "linux":
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
