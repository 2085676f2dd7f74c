"""A run's progress, for people."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

from pipeline.progress import Progress

#: Seconds between progress lines where the output is no terminal.
_LINE_EVERY_S = 10.0


class ProgressLine:
    """Shows a run's progress on standard error: one line kept up to date, or a log line every 10 s."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown_at = time.monotonic()
        self._open = False
        self._first: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Show the latest state."""
        if self._first is None and progress.new:
            self._first = progress
        now = time.monotonic()
        if not self._terminal and now - self._shown_at < _LINE_EVERY_S:
            return
        self._shown_at = now
        line = describe(progress, self._first)
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
            self._open = True
        else:
            logging.getLogger("jobs").info("%s", line)

    def close(self) -> None:
        """End the line; what comes after it is another run."""
        self._first = None
        if self._open:
            sys.stderr.write("\n")
            self._open = False


def describe(progress: Progress, first: Progress | None) -> str:
    """Return a progress line: images done of planned, images/s, rejects, time to go.

    The rate is that since ``first``, the first state with images done, so that the start of the engines, which happens
    once, doesn't spoil the estimate of the time to go.
    """
    since = progress.elapsed_s - first.elapsed_s if first else 0.0
    rate = (progress.new - first.new) / since if first and since else 0.0
    left = progress.planned - progress.done
    eta = tqdm.format_interval(left / rate) if rate else "?"
    share = 100 * progress.done / progress.planned if progress.planned else 100.0
    return (
        f"{progress.done}/{progress.planned} images ({share:.0f} %), {rate:.1f} images/s, "
        f"{progress.rejected} rejects, {eta} to go"
    )
