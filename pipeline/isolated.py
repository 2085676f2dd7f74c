"""The child of an `IsolatedDecoder`: decodes the images that come in, within limits, and answers.

It imports what decoding needs and nothing else.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection

from pipeline.errors import ImageReject, RejectCode
from pipeline.images import Limits, read_header
from pipeline.preprocessing import Preprocessing, decode_and_crop

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
# What an image of any size may take besides: libraries' tables and buffers, the crop, the heap's growth in steps.
_BASE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Task:
    """What a child is told when it starts.

    Args:
        preprocessing: From a decoded image to pixels.
        limits: What a single image may cost.
        cpu_s: Processor time for one image (seconds).
        memory_bytes: Memory for decoding one image; None: what its own header lets expect.
    """

    preprocessing: Preprocessing
    limits: Limits
    cpu_s: float
    memory_bytes: int | None

    def to_json(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Task:
        """Return what `to_json` wrote."""
        fields = json.loads(text)
        preprocessing = fields["preprocessing"]
        preprocessing.update(mean=tuple(preprocessing["mean"]), std=tuple(preprocessing["std"]))
        limits = Limits(**fields["limits"])
        return cls(Preprocessing(**preprocessing), limits, fields["cpu_s"], fields["memory_bytes"])


def serve(descriptor: int, parent: int) -> None:
    """Decode the images that come in, as the child of an `IsolatedDecoder`.

    Args:
        descriptor: The child's end of the pipe.
        parent: Process id of the parent.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died already
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    _offer_to_oom_killer()
    connection = Connection(descriptor)
    task = Task.from_json(connection.recv_bytes())
    connection.send_bytes(b"{}")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders complain there without end; until now it took a traceback
    while True:
        try:
            data = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(_answer(task, data))


def _answer(task: Task, data: bytes) -> bytes:
    try:
        # The default action of SIGPROF ends the process, in whatever loop of whatever library it is.
        signal.setitimer(signal.ITIMER_PROF, task.cpu_s)
        header = read_header(data, task.limits)
        with _memory_limit(task.memory_bytes or header.decoding_bytes + _BASE_BYTES):
            pixels, (height, width) = decode_and_crop(task.preprocessing, task.limits, data)
    except ImageReject as reject:
        return json.dumps({"code": reject.code.value, "message": reject.message}).encode()
    except Exception as error:
        return json.dumps({"trouble": f"{type(error).__name__}: {error}"}).encode()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return json.dumps({"height": height, "width": width}).encode() + b"\n" + pixels.tobytes()


@contextmanager
def _memory_limit(num_bytes: int) -> Iterator[None]:
    """Turn MemoryError into a reject, with so much more private memory than now (RLIMIT_DATA since Linux 4.7)."""
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    with open("/proc/self/status") as status:
        (now,) = (int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
    own = most == resource.RLIM_INFINITY or now + num_bytes <= most
    resource.setrlimit(resource.RLIMIT_DATA, (now + num_bytes if own else most, most))
    scarce = False
    try:
        yield
    except MemoryError:
        if not own:  # the surroundings' limit, and no fault of the image
            raise
        scarce = True
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))
    if scarce:
        raise ImageReject("decode", RejectCode.TOO_LARGE, f"Decoding it takes more than {num_bytes} bytes of memory.")


def _offer_to_oom_killer() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # rather than the parent, when memory is out
    except OSError:
        pass
