"""What all jobs share: options from the command line and a YAML file, progress, exit codes."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

import yaml
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict, SettingsError
from tqdm import tqdm

from pipeline import storage
from pipeline.errors import ConfigError, PipelineError
from pipeline.failures import Seam, Verdict, find
from pipeline.options import Options
from pipeline.progress import Progress

EXIT_DONE, EXIT_PENDING, EXIT_USAGE, EXIT_REJECTS, EXIT_BREACH = 0, 1, 2, 3, 4
#: What a job that ends with a failure exits with.
EXIT_CODES = {
    Verdict.REJECT: EXIT_REJECTS,
    Verdict.RETRY: EXIT_PENDING,
    Verdict.PENDING: EXIT_PENDING,
    Verdict.FATAL: EXIT_USAGE,
    Verdict.BREACH: EXIT_BREACH,
}

AnyOptions = TypeVar("AnyOptions", bound=Options)

#: An option of one letter behind two dashes (--C 1), of which the parser knows one dash only.
_LONG_LETTER = re.compile(r"^--(?=[A-Za-z](=|$))")

#: Seconds between progress lines where the output is no terminal.
_LINE_EVERY_S = 10.0


def parse(options_class: type[AnyOptions], job: str, argv: list[str]) -> tuple[AnyOptions, bool]:
    """Read a job's options from the command line, and from a YAML file where ``--config`` names one.

    The command line wins over the file.

    Returns:
        The options, and whether ``--json`` was given.

    Raises:
        ConfigError: An option is unknown, missing or wrong.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m jobs.{job}",
        description=options_class.__doc__,
        epilog="Exit codes: 0 done; 1 something is pending, run the same command again; 2 usage or configuration; "
        "3 more rejects than allowed; 4 a table was verified and is not as it should be.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with options by their names (unit_size: 1024).")
    parser.add_argument("--json", action="store_true", help="Print the run's record as one JSON object on stdout.")
    own, rest = argparse.Namespace(config=None, json=False), list(argv)
    if not {"-h", "--help"} & set(argv):
        own, rest = _split_own(argv)
    rest = [_LONG_LETTER.sub("-", argument) for argument in rest]
    settings = type(options_class.__name__, (options_class, _CommandLine), {"__doc__": options_class.__doc__})
    try:
        source: Any = CliSettingsSource(settings, cli_parse_args=rest, root_parser=parser, cli_prog_name=parser.prog)
        given = {**_from_file(own.config), **_by_field_name(source())}
    except SettingsError as error:  # doesn't quote the value, which may hold a secret; nor may this
        name, _, reason = str(error).removeprefix("Parsing error encountered for ").partition(": ")
        expected = "expected an object as JSON, as in '{\"anon\": true}'"
        raise ConfigError(f"Option --{name.replace('_', '-')}: {expected}: {reason}.") from None
    return options_class(**given), bool(own.json)


class _CommandLine(BaseSettings):
    model_config = SettingsConfigDict(
        cli_kebab_case=True, cli_implicit_flags=True, cli_avoid_json=True, cli_hide_none_type=True
    )


def _split_own(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--config")
    own.add_argument("--json", action="store_true")
    return own.parse_known_args(argv)


def _by_field_name(values: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in values.items() if key not in ("config", "json")}


def _from_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"Expected a YAML file at {path} (--config): {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"Expected options by name in {path} (--config), got a {type(values).__name__}.")
    return {str(key).replace("-", "_"): value for key, value in values.items()}


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
