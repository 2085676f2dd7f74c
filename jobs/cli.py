"""What all jobs share: standard streams, errors, exit codes."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from jobs.arguments import AnyOptions, parse
from jobs.progress_line import ProgressLine
from pipeline import storage
from pipeline.errors import ConfigError, PipelineError
from pipeline.failures import Seam, Verdict, find

EXIT_DONE, EXIT_PENDING, EXIT_USAGE, EXIT_REJECTS, EXIT_BREACH = 0, 1, 2, 3, 4
#: What a job that ends with a failure exits with.
EXIT_CODES = {
    Verdict.REJECT: EXIT_REJECTS,
    Verdict.RETRY: EXIT_PENDING,
    Verdict.PENDING: EXIT_PENDING,
    Verdict.FATAL: EXIT_USAGE,
    Verdict.BREACH: EXIT_BREACH,
}


def run_job(
    job: str,
    options_class: type[AnyOptions],
    work: Callable[[AnyOptions, ProgressLine], dict[str, Any]],
    summary: Callable[[dict[str, Any]], str],
    argv: list[str] | None = None,
) -> int:
    """Parse, work, print, and return the exit code.

    Args:
        job: The module's name under ``jobs``.
        options_class: Its options.
        work: Does the job and returns its record.
        summary: Turns a record into a few lines for people.
        argv: The command line; None for the process's own.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        options, as_json = parse(options_class, job, arguments)
    except ConfigError as error:
        return _fail(job, error, "--json" in arguments, sys.stdout)
    verbose = bool(getattr(options, "verbose", False))
    with own_streams(verbose) as stdout:
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr, force=True)
        for name in ("pipeline", "jobs"):
            logging.getLogger(name).setLevel(logging.INFO)
        progress = ProgressLine()
        try:
            with _stopped_by_sigterm():
                record = work(options, progress)
        except KeyboardInterrupt:
            progress.close()
            _say("Stopped. Nothing is lost: run the same command again to go on.")
            if as_json:
                _print_record({"job": job, "status": "stopped"}, EXIT_PENDING, stdout)
            return EXIT_PENDING
        except (PipelineError, OSError) as error:
            progress.close()
            if verbose:
                storage.log_traceback(logging.getLogger("jobs"), "The job failed.")
            return _fail(job, error, as_json, stdout)
        progress.close()
        _say(summary(record))
        if as_json:
            _print_record(record, EXIT_DONE, stdout)
        return EXIT_DONE


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM, as schedulers and `ray job stop` send it, like Ctrl-C."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def own_streams(verbose: bool) -> Iterator[TextIO]:
    """Keep standard output and standard error for this program; yield the stream for its result.

    Ray prints to both, its core to the file descriptors past every Python setting. So the program goes on with copies
    of its own, and what libraries and child processes write goes to a file, of which the end is shown should the
    program fail for a reason that it doesn't know; or, where ``verbose``, to standard error.
    """
    out, err = cast(TextIO, sys.stdout), cast(TextIO, sys.stderr)
    if out is not sys.__stdout__ or err is not sys.__stderr__:
        yield out  # somebody captures them already
        return
    out.flush()
    err.flush()
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as noise, os.fdopen(os.dup(1), "w") as stdout:
        os.dup2(2 if verbose else noise.fileno(), 1)
        if not verbose:
            os.dup2(noise.fileno(), 2)
            sys.stderr = os.fdopen(os.dup(kept[1]), "w", buffering=1, errors="backslashreplace")
        try:
            yield stdout
        except Exception:
            noise.seek(max(0, noise.seek(0, os.SEEK_END) - 4096))
            os.write(kept[1], noise.read())
            raise
        finally:
            out.flush()
            for number, copy in enumerate(kept, start=1):
                os.dup2(copy, number)
                os.close(copy)
            sys.stderr = err


def _fail(job: str, error: Exception, as_json: bool, stdout: TextIO) -> int:
    """Say what went wrong, and return the exit code."""
    code, text = EXIT_CODES[find(error, Seam.JOB).verdict], storage.explained(error)
    if code == EXIT_PENDING and not isinstance(error, PipelineError):  # whose own messages say how to go on
        text = f"{text.rstrip('.')}. Nothing is lost: run the same command again to go on."
    _say(f"Error: {text}")
    if as_json:
        record = getattr(error, "record", None) or {"job": job, "status": "failed", "error": text}
        _print_record(record, code, stdout)
    return code


def _print_record(record: dict[str, Any], code: int, stdout: TextIO) -> None:
    stdout.write(json.dumps({**record, "exit_code": code}) + "\n")
    stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(text.rstrip() + "\n")
