"""The command line: one definition of options, config files, exit codes, what goes to which stream."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from jobs import arguments, doctor, embed, evaluate, export, predict, train, verify
from jobs.cli import run_job
from jobs.progress_line import ProgressLine, describe
from pipeline.doctor import DoctorOptions
from pipeline.embed import EmbedOptions
from pipeline.errors import ConfigError, RunIncomplete, TooManyRejects, VerificationFailed
from pipeline.export import ExportOptions
from pipeline.heads import EvaluateOptions, TrainOptions
from pipeline.options import Options, flags
from pipeline.predict import PredictOptions
from pipeline.progress import Progress
from pipeline.verify import VerifyOptions

JOBS: list[tuple[Any, type[Options]]] = [
    (embed, EmbedOptions),
    (train, TrainOptions),
    (evaluate, EvaluateOptions),
    (predict, PredictOptions),
    (export, ExportOptions),
    (verify, VerifyOptions),
    (doctor, DoctorOptions),
]


@pytest.mark.parametrize(("job", "options"), JOBS)
def test_help__shows_every_option_with_a_description(
    job: Any, options: type[Options], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        job.main(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in options.model_fields.items():
        assert f" {flags([name])} " in text or f"[{flags([name])} " in text
        assert field.description
        assert " ".join(field.description.split())[:30] in text
    assert "Exit codes: 0 done; 1 something is pending" in text


def parse(*words: str) -> tuple[EmbedOptions, bool]:
    return arguments.parse(EmbedOptions, "embed", list(words))


def test_parse__command_line() -> None:
    options, as_json = parse("--source", "s", "--table", "t", "--unit-size", "7", "--verbose", "--json")
    assert options == EmbedOptions(source="s", table="t", unit_size=7, verbose=True)
    assert as_json


def test_parse__config_file_and_the_command_line_wins(tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("source: s\ntable: t\nunit_size: 7\nmax-reject-fraction: 0.5\nlimit: null\n")
    options, _ = parse("--config", str(config), "--unit-size", "9")
    assert options == EmbedOptions(source="s", table="t", unit_size=9, max_reject_fraction=0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: s\ntable: t\nunit_siz: 7\n", "--unit-siz is not known"),
        ("source: s\ntable: t\nunit_size: many\n", "--unit-size: input should be a valid integer.*got 'many'"),
        ("- source\n", "got a list"),
        ("a: [", "Expected a YAML file"),
    ],
)
def test_parse__config_file_is_strict(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(text)
    with pytest.raises(ConfigError, match=message):
        parse("--config", str(config))


@pytest.mark.parametrize("value", ['{"secret": "geheim"', '["geheim"]', "geheim", '{"secret": geheim}'])
def test_parse__an_object_that_is_no_json_is_an_error_that_does_not_quote_it(value: str) -> None:
    with pytest.raises(ConfigError, match="--storage-options: expected an object as JSON") as caught:
        parse("--source", "s", "--table", "t", "--storage-options", value)
    assert "geheim" not in str(caught.value)


def test_parse__does_not_read_options_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIT_SIZE", "3")
    monkeypatch.setenv("unit_size", "3")
    assert parse("--source", "s", "--table", "t")[0].unit_size is None


def test_parse__a_tuple_is_given_with_commas() -> None:
    options, _ = arguments.parse(TrainOptions, "train", ["--table", "t", "--head", "h", "--hidden", "32,16"])
    assert options.hidden == (32, 16)


@pytest.mark.parametrize("given", [["-C", "0.5", "-k", "7"], ["--C", "0.5", "--k", "7"], ["--C=0.5", "--k=7"]])
def test_parse__an_option_of_one_letter_has_one_dash_or_two(given: list[str]) -> None:
    options, _ = arguments.parse(TrainOptions, "train", ["--table", "t", "--head", "h", *given])
    assert (options.C, options.k) == (0.5, 7)
    with pytest.raises(ConfigError, match="^Option -C: input should be greater than 0"):
        arguments.parse(TrainOptions, "train", ["--table", "t", "--head", "h", "-C", "0"])


@pytest.mark.parametrize("arguments", [["--nonsense", "1"], ["--unit-size"], ["stray"], ["--sourc", "x"]])
def test_main__unknown_arguments_exit_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        embed.main(arguments)
    assert caught.value.code == 2


class NoOptions(Options):
    """A job for these tests."""

    verbose: bool = False


def run(work: Any, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_job("test", NoOptions, work, lambda record: f"summary of {record['x']}", list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_run_job__success(capsys: pytest.CaptureFixture[str]) -> None:
    def work(*_: object) -> dict[str, Any]:
        return {"x": 1}

    assert run(work, capsys) == (0, "", "summary of 1\n")
    code, out, _ = run(work, capsys, "--json")
    assert (code, json.loads(out)) == (0, {"x": 1, "exit_code": 0})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong"), 2),
        (RunIncomplete("wrong", {"status": "pending"}), 1),
        (TooManyRejects("wrong", {"status": "too_many_rejects"}), 3),
        (VerificationFailed("wrong", {"status": "breach"}), 4),
        (OSError(28, "wrong"), 1),
        (KeyboardInterrupt(), 1),
    ],
)
def test_run_job__failures_are_one_message_and_a_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_: object) -> dict[str, Any]:
        raise error

    found, out, err = run(work, capsys, "--json")
    assert found == code
    assert "Traceback" not in err
    if isinstance(error, KeyboardInterrupt):
        assert "run the same command again" in err
        return
    assert err.startswith("Error: ")
    assert "wrong" in err
    record = json.loads(out)
    assert record["exit_code"] == code
    assert record["status"] in ("failed", "pending", "too_many_rejects", "breach")


def test_run_job__sigterm_is_like_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    def work(*_: object) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        return {}

    code, out, err = run(work, capsys, "--json")
    assert (code, json.loads(out)["status"]) == (1, "stopped")
    assert "run the same command again" in err


@pytest.mark.parametrize("error", [FileExistsError(17, "wrong"), PermissionError(13, "wrong")])
def test_run_job__an_output_that_can_not_be_written_is_no_reason_to_try_again(
    error: OSError, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_: object) -> dict[str, Any]:
        raise error

    assert run(work, capsys)[0] == 2


def test_run_job__verbose_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def work(*_: object) -> dict[str, Any]:
        raise ConfigError("wrong")

    _, _, err = run(work, capsys, "--verbose")
    assert "Traceback" in err


def test_describe__counts_the_rate_from_the_first_images_on() -> None:
    first = Progress(planned=1000, done=110, rejected=0, new=10, elapsed_s=20.0)
    now = Progress(planned=1000, done=310, rejected=2, new=210, elapsed_s=30.0)
    assert describe(now, first) == "310/1000 images (31 %), 20.0 images/s, 2 rejects, 00:34 to go"
    assert "? to go" in describe(first, None)


def test_progress_line__logs_seldom_where_there_is_no_terminal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "jobs")
    now = [100.0]
    monkeypatch.setattr("jobs.progress_line.time.monotonic", lambda: now[0])
    line = ProgressLine()
    for second in range(25):
        now[0] = 100.0 + second
        line(Progress(100, second, 0, second, float(second)))
    assert len(caplog.messages) == 2
