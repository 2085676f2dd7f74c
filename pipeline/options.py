"""The base of every job's options: one definition for Python, the command line and a YAML file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ConfigError


class Options(BaseModel):
    """Validated, immutable options; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(explain(error)) from None

    def record(self) -> dict[str, Any]:
        """Return the options as plain JSON values, for a run's record."""
        return self.model_dump(mode="json")


def flags(names: Iterable[str]) -> str:
    """Return options as they are written on the command line: ``--batch-size, --device, -k``."""
    return ", ".join(("-" if len(name) == 1 else "--") + name.replace("_", "-") for name in names)


def explain(error: ValidationError) -> str:
    """Return one line for each wrong option: its name, what was expected and what was got."""
    lines = []
    for item in error.errors(include_url=False):
        if not item["loc"]:  # about several options together
            lines.append(f"Options: {item['msg'].removeprefix('Value error, ')}.")
            continue
        name = flags([".".join(str(part) for part in item["loc"])])
        if item["type"] == "missing":
            lines.append(f"Option {name} is required.")
        elif item["type"] == "extra_forbidden":
            lines.append(f"Option {name} is not known. Use --help for the list of options.")
        else:
            # What stands where an object should be may be one that holds a secret, and was misspelled.
            got = f"a {type(item['input']).__name__}" if item["type"] == "dict_type" else repr(item["input"])
            lines.append(f"Option {name}: {item['msg'][0].lower()}{item['msg'][1:]}; got {got}.")
    return "\n".join(lines)
