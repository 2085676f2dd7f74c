"""Failpoints: named places where a test makes a process die, hang or wait, from outside and without patching.

Nothing happens unless the environment variable VEP_FAILPOINTS is set, a JSON list of objects:

    point    where, one of `POINTS`
    action   exit (at once, without cleaning up), kill (SIGKILL), segv (SIGSEGV), sleep, spin (use the processor), wait
             (until the file named by ``until`` is there), fail (raise OSError, as storage does), log
    match    only where the detail (a unit's name, an image's bytes) holds this text
    times    at most so often, over all processes together; needs ``folder``
    seconds  how long to sleep or spin
    folder   where hits are counted, one empty file each; and for ``log`` where the file ``log`` gets a line a hit

The idea is that of fail(9) of FreeBSD: a crash at a chosen instruction is the only way to show what a crash there does.
"""

from __future__ import annotations

import json
import os
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

VARIABLE = "VEP_FAILPOINTS"

#: In the order in which a unit comes by: its reading begins; an image has been read and is about to be decoded; all of
#: its images are; the engine gets it; it is through the engine; its rejects file is about to be written; so is its data
#: file, after the rejects; it is committed.
POINTS = ("read", "decode", "decoded", "embed", "embedded", "rejects_put", "data_put", "committed")


def reach(point: str, detail: str | bytes = "") -> None:
    """Do what the environment asks for at a failpoint; nothing as a rule.

    Args:
        point: One of `POINTS`.
        detail: What is being worked on, for ``match``.
    """
    if text := os.environ.get(VARIABLE):
        for failure in _parsed(text):
            if failure["point"] == point and _matches(failure.get("match", ""), detail) and _counts(failure):
                _act(failure, detail)


@cache
def _parsed(text: str) -> list[dict[str, Any]]:
    failures: list[dict[str, Any]] = json.loads(text)
    unknown = {failure["point"] for failure in failures} - set(POINTS)
    if unknown:
        raise ValueError(f"Expected failpoints out of {', '.join(POINTS)} in {VARIABLE}, got {', '.join(unknown)}.")
    return failures


def _matches(wanted: str, detail: str | bytes) -> bool:
    return wanted.encode() in detail if isinstance(detail, bytes) else wanted in detail


def _counts(failure: dict[str, Any]) -> bool:
    """Take one of the hits that are left, if any are; creating a file is what two processes can't both do."""
    for number in range(failure.get("times", 0)):
        name = f"{failure['point']}-{failure['action']}-{failure.get('match', '')}-{number}"
        try:
            (Path(failure["folder"]) / name).touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return "times" not in failure


def _act(failure: dict[str, Any], detail: str | bytes) -> None:
    action = failure["action"]
    if action == "exit":
        os._exit(77)
    elif action in ("kill", "segv"):
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSEGV)
    elif action == "sleep":
        time.sleep(failure["seconds"])
    elif action == "spin":
        end = time.monotonic() + failure["seconds"]
        while time.monotonic() < end:
            pass
    elif action == "wait":
        while not Path(failure["until"]).exists():
            time.sleep(0.05)
    elif action == "fail":
        raise OSError(5, f"failpoint {failure['point']}")
    elif action == "log":
        text = detail if isinstance(detail, str) else f"{len(detail)} bytes"
        with open(Path(failure["folder"]) / "log", "a") as file:  # short appended lines of several writers don't mix
            file.write(f"{failure['point']} {text} {os.getpid()}\n")
    else:
        raise ValueError(f"Unknown action {action!r} in {VARIABLE}.")
