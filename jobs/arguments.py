"""Options from the command line and a YAML file."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict, SettingsError

from pipeline.errors import ConfigError
from pipeline.options import Options

AnyOptions = TypeVar("AnyOptions", bound=Options)

#: An option of one letter behind two dashes (--C 1), of which the parser knows one dash only.
_LONG_LETTER = re.compile(r"^--(?=[A-Za-z](=|$))")


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
