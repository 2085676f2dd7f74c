"""Labels and splits from the components of a path, and which paths are wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

from pipeline.errors import ConfigError
from pipeline.refs import SPLITS

#: Label or split of an image by its path relative to the source's root, parts from the top folder to the file's name.
PathRule = Callable[[Sequence[str]], str | None]


def label_rule(text: str, split_from_top: bool) -> PathRule:
    """Return the rule that ``--label-from`` names.

    Args:
        text: ``parent``, ``depth:N`` (1: the top folder; -1: the file's own folder), ``regex:PATTERN`` or ``none``.
        split_from_top: Whether a top folder that is named like a split is none of the class folders.

    Raises:
        ConfigError: It is none of these.
    """
    if text == "parent":
        return lambda parts: _parent(parts, split_from_top)
    return _rule("--label-from", text, "parent")


def split_rule(text: str) -> PathRule:
    """Return the rule that ``--split-from`` names: ``auto`` (a top folder named like a split), or as for labels.

    Raises:
        ConfigError: It is none of these.
    """
    if text == "auto":
        return lambda parts: SPLITS.get(parts[0].lower()) if len(parts) > 1 else None
    rule = _rule("--split-from", text, "auto")
    return lambda parts: split_name(rule(parts))


def split_name(value: str | None) -> str | None:
    """Return a split by its usual name: ``val`` is ``validation``; other names stay as they are."""
    return None if value is None or value == "" else SPLITS.get(value.lower(), value)


def _parent(parts: Sequence[str], split_from_top: bool) -> str | None:
    folders = parts[:-1]
    if split_from_top and folders and folders[0].lower() in SPLITS:
        folders = folders[1:]
    return folders[-1] if folders else None


def _rule(option: str, text: str, first_choice: str) -> PathRule:
    kind, _, argument = text.partition(":")
    if kind == "none" and not argument:
        return lambda _: None
    if kind == "depth" and re.fullmatch(r"-?[1-9]\d*", argument):
        number = int(argument)
        place = number - 1 if number > 0 else number

        def at_depth(parts: Sequence[str]) -> str | None:
            folders = parts[:-1]
            return folders[place] if -len(folders) <= place < len(folders) else None

        return at_depth
    if kind == "regex" and argument:
        try:
            pattern = re.compile(argument)
        except re.error as error:
            raise ConfigError(f"Option {option}: {argument!r} is no regular expression: {error}.") from None
        if not pattern.groups:
            raise ConfigError(f"Option {option}: expected a group in {argument!r}, as in 'regex:^([^_]+)_'.")

        def by_regex(parts: Sequence[str]) -> str | None:
            match = pattern.search("/".join(parts))
            return match.group(1) if match else None

        return by_regex
    raise ConfigError(
        f"Option {option}: expected {first_choice}, depth:N, regex:PATTERN or none for this format, got {text!r}."
    )


def wanted(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """Return whether a path, relative to the source's root, is to be taken.

    A pattern without a slash is matched against the file's name, one with a slash against the whole relative path;
    ``**`` stands for any number of folders.
    """

    def matches(patterns: Sequence[str], path: str) -> bool:
        name = path.rpartition("/")[2]
        return any(_compiled(pattern).match(path if "/" in pattern else name) for pattern in patterns)

    return lambda path: (not include or matches(include, path)) and not matches(exclude, path)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    from fsspec.utils import glob_translate  # here, since reading processes look no patterns up

    return re.compile(glob_translate(pattern.lstrip("/")))
