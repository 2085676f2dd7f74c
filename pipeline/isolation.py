"""Decoding in a process of its own, for images of which one ends the process that decodes it.

Bytes go to the child, a line of JSON and raw pixels come back: nothing that a damaged decoder may send is executed or
unpickled. It is no sandbox: the child has the rights of its parent.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from multiprocessing.connection import Pipe
from types import TracebackType

import numpy as np

from pipeline.errors import ImageReject, RejectCode, TransientError
from pipeline.images import Limits, Pixels
from pipeline.isolated import Task
from pipeline.preprocessing import Preprocessing

#: How often an image may end its process before it is to blame: once may be chance, or an earlier image's doing.
ATTEMPTS = 2
_START_S = 60.0
# A child whose pipe is closed is about to end; how it does is known a moment later.
_END_S = 5.0
# Longest line of JSON that an answer begins with.
_LINE_BYTES = 64 * 2**10
# The interpreter's own path would be that of -c: the current folder first.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[3:]; from pipeline.isolated import serve; serve(*map(int, sys.argv[1:3]))"
)
# A pool of threads costs its start and each thread's stack, and decoding uses none.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class IsolatedDecoder:
    """Decodes images one by one in a child process with limits; a `pipeline.preprocessing.Decode`.

    A child that dies is replaced, and its image tried once more. Used from one thread, which must outlive the ``with``
    block: Linux ends the child along with the thread that started it.

    Args:
        preprocessing: From a decoded image to pixels.
        limits: What a single image may cost.
        cpu_s: Processor time for one image (seconds).
        wall_s: Time for one image (seconds).
        memory_bytes: Memory for decoding one image; unset: what its own header lets expect.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        limits: Limits,
        cpu_s: float = 60.0,
        wall_s: float = 600.0,
        memory_bytes: int | None = None,
    ) -> None:
        if not 0 < cpu_s < wall_s:
            raise ValueError(f"Expected 0 < cpu_s < wall_s, got {cpu_s} and {wall_s}.")
        self._task = Task(preprocessing, limits, cpu_s, memory_bytes)
        self._wall_s = wall_s
        self._child: _Child | None = None

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.end()
            self._child = None

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        return None if self._child is None else self._child.process.pid

    def __call__(self, data: bytes) -> tuple[Pixels, tuple[int, int]]:
        """Decode one image.

        Returns:
            uint8 array of shape (crop, crop, 3), BGR, and (height, width) of the decoded image.

        Raises:
            ImageReject: As `pipeline.images.decode`; or ``crashed``, ``timed_out`` (by processor time), ``too_large``.
            TransientError: It took too long without using the processor, a child was killed from outside, or none can
                be had.
        """
        deaths: list[_Died] = []
        for _ in range(ATTEMPTS):
            if self._child is None:
                self._child = _Child(self._task)
            try:
                return self._result(self._child.ask(data, self._wall_s))
            except _Died as death:
                self.close()
                if death.out_of_time:
                    raise _reject(
                        RejectCode.TIMED_OUT,
                        f"Decoding this image used the processor for more than {self._task.cpu_s:g} s.",
                    ) from None
                deaths.append(death)
            except TransientError:
                self.close()
                raise
        ends = " and ".join(str(death) for death in deaths)
        if any(death.by_others for death in deaths):
            raise TransientError(
                f"The process that decodes this image was ended {ATTEMPTS} times: {ends}. The system sends SIGKILL "
                "where memory runs out: give the machine more, or lower --max-image-pixels."
            )
        raise _reject(RejectCode.CRASHED, f"Decoding this image ended a process of its own {ATTEMPTS} times: {ends}.")

    def _result(self, answer: bytes) -> tuple[Pixels, tuple[int, int]]:
        try:
            line, _, payload = answer.partition(b"\n")
            fields = json.loads(line)
            if "trouble" in fields:
                raise TransientError(f"The image can't be decoded now: {fields['trouble']}")
            if "code" in fields:
                raise _reject(RejectCode(fields["code"]), str(fields["message"]))
            crop = self._task.preprocessing.crop
            pixels = np.frombuffer(payload, np.uint8).reshape(crop, crop, 3)
            return pixels, (int(fields["height"]), int(fields["width"]))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise _Died("an answer without sense") from None


class _Died(Exception):
    """A child has ended.

    Args:
        how: In words.
        out_of_time: Whether by the limit of processor time.
        by_others: Whether by a signal that no image can send: it tells of the machine, and may pass.
    """

    def __init__(self, how: str, out_of_time: bool = False, by_others: bool = False) -> None:
        super().__init__(how)
        self.out_of_time, self.by_others = out_of_time, by_others


class _Child:
    """A child that has started and answers.

    Raises:
        TransientError: It can't be started.
    """

    def __init__(self, task: Task) -> None:
        self._connection, theirs = Pipe()
        self._longest = _LINE_BYTES + 3 * task.preprocessing.crop**2
        with tempfile.TemporaryFile() as errors, theirs:
            try:
                self.process = subprocess.Popen(  # noqa: S603 (this interpreter, our own program)
                    [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), str(os.getpid()), *sys.path],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, **_ENVIRONMENT},
                    start_new_session=True,  # Ctrl-C is for the parent, which ends the child
                )
            except OSError as error:
                self._connection.close()
                raise TransientError(f"No process can be started to decode in: {error}") from error
            theirs.close()
            try:
                self.ask(task.to_json(), _START_S)
            except _Died as death:
                self.end()
                errors.seek(max(0, errors.seek(0, os.SEEK_END) - 1000))
                last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise TransientError(f"The process to decode in ended at its start with {death}: {last}") from None
            except BaseException:
                self.end()
                raise

    def ask(self, message: bytes, seconds: float) -> bytes:
        """Give the child a message and return its answer.

        Raises:
            _Died: It has ended.
            TransientError: It had to be ended, after so many seconds.
        """
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self.process.kill()  # which also ends a wait for a child that reads nothing or is stopped

        timer = threading.Timer(seconds, expire)
        timer.start()
        try:
            self._connection.send_bytes(message)
            return self._connection.recv_bytes(self._longest)
        except (EOFError, OSError):
            death = self._death()
            if expired.is_set():
                raise TransientError(
                    f"A process that decodes one image gave no answer for {seconds:g} s, without using the processor "
                    "all that time. The machine may be overloaded or stopped."
                ) from None
            raise death from None
        finally:
            timer.cancel()

    def _death(self) -> _Died:
        try:
            code = self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return _Died("an answer without sense")
        if code >= 0:
            return _Died(f"exit code {code}")
        if code == -signal.SIGKILL:
            return _Died("SIGKILL", by_others=True)
        known = -code in set(signal.Signals)
        return _Died(signal.Signals(-code).name if known else f"signal {-code}", code == -signal.SIGPROF)

    def end(self) -> None:
        """End the child, whatever it is doing."""
        self._connection.close()
        self.process.kill()
        self.process.wait()


def _reject(code: RejectCode, message: str) -> ImageReject:
    return ImageReject("decode", code, message)
