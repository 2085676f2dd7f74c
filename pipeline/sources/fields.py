"""What becomes of the fields that lie beside an image in a tar: labels, splits, and columns of the table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.refs import extra_name
from pipeline.sources.paths import label_rule, split_name, split_rule
from pipeline.sources.patterns import split_by_name

_TEXT_FIELDS = frozenset(("txt", "text", "caption", "json", "cls", "csv", "tsv", "xml", "html", "url", "md"))

#: Label or split of an image by the parts of its member's name, and the fields of its sample.
FieldRule = Callable[[Sequence[str], Mapping[str, "bytes | None"]], "str | None"]


@dataclass(frozen=True, slots=True)
class FieldRules:
    """What becomes of the fields that lie beside an image.

    Args:
        label_from: ``auto`` (field ``cls``, where there is one), ``cls``, ``txt``, ``json:FIELD`` (``json:a.b`` for a
            value within an object), or a rule for the member's path: see `pipeline.sources.paths.label_rule`.
        split_from: ``auto`` (the shard's name begins with a split's, as in ``train-000.tar``, or its folder is named
            so), ``json:FIELD``, or a rule for the member's path: see `pipeline.sources.paths.split_rule`.
        columns: Fields that travel into the table: ``all`` but the one that is the label, ``none``, or names with
            commas between them.

    Raises:
        ConfigError: One is none of these.
    """

    label_from: str
    split_from: str
    columns: str

    def __post_init__(self) -> None:
        for option, rule, kinds in (
            ("--label-from", self.label_from, ("auto", "cls", "txt", "json", "parent", "depth", "regex", "none")),
            ("--split-from", self.split_from, ("auto", "json", "depth", "regex", "none")),
        ):
            kind, colon, argument = rule.partition(":")
            if kind not in kinds or (kind in ("auto", "cls", "txt") and colon) or (kind == "json" and not argument):
                known = {"json": "json:FIELD", "depth": "depth:N", "regex": "regex:PATTERN"}
                expected = ", ".join(known.get(each, each) for each in kinds[:-1])
                raise ConfigError(f"Option {option}: expected {expected} or none for this format, got {rule!r}.")
        self.label(), self.split("")

    def needs(self) -> dict[str, str]:
        """Return the fields that must be there, and the options that name them."""
        named = dict.fromkeys(self._named(), "--columns")
        if self.split_from.startswith("json:"):
            named[self.split_from] = "--split-from"
        if self.label_from in ("cls", "txt") or self.label_from.startswith("json:"):
            named[self.label_from] = "--label-from"
        return named

    def is_read(self, field: str) -> bool:
        """Return whether a field's value is needed."""
        by_json = any(rule.startswith("json:") for rule in (self.label_from, self.split_from))
        return self._travels(field) or field == self._label_field() or (by_json and field == "json")

    def schema(self, fields: Iterable[str]) -> pa.Schema:
        """Return the columns of those among some fields that travel."""
        return pa.schema([pa.field(name, field_type(each)) for name, each in self.names(fields).items()])

    def names(self, fields: Iterable[str]) -> dict[str, str]:
        """Return those among some fields that travel, by their names in the table."""
        names: dict[str, str] = {}
        for each in sorted(filter(self._travels, fields)):
            other = names.setdefault(extra_name(each), each)
            if other != each:
                raise ConfigError(
                    f"Fields {other!r} and {each!r} would share the column {extra_name(each)!r}. Choose by --columns."
                )
        return names

    def label(self) -> FieldRule:
        """Return the rule for labels."""
        field = self._label_field()
        if field is not None:
            return lambda _, fields: _text(fields.get(field))
        if self.label_from.startswith("json:"):
            return self._by_json(self.label_from)
        by_path = label_rule(self.label_from, self.split_from == "auto")
        return lambda parts, _: (by_path(parts) or None) if parts else None

    def split(self, uri: str) -> FieldRule:
        """Return the rule for the splits of a shard's images."""
        if self.split_from == "auto":
            by_name = split_by_name(uri)
            return lambda *_: by_name
        if self.split_from.startswith("json:"):
            by_json = self._by_json(self.split_from)
            return lambda parts, fields: split_name(by_json(parts, fields))
        by_path = split_rule(self.split_from)
        return lambda parts, _: by_path(parts) if parts else None

    @staticmethod
    def _by_json(rule: str) -> FieldRule:
        path = rule.removeprefix("json:")
        return lambda _, fields: json_value(fields.get("json"), path)

    def _named(self) -> list[str]:
        names = () if self.columns in ("all", "none") else self.columns.split(",")
        return [name.strip().lower() for name in names if name.strip()]

    def _label_field(self) -> str | None:
        return {"auto": "cls", "cls": "cls", "txt": "txt"}.get(self.label_from)

    def _travels(self, field: str) -> bool:
        if self.columns == "all":
            return field not in ("", self._label_field())
        return field in self._named()


def field_type(field: str) -> pa.DataType:
    """Return the type of a field's column, which depends on its name alone, so that all shards agree."""
    last = field.rpartition(".")[2]
    return pa.string() if last in _TEXT_FIELDS or re.fullmatch("__.*__", last) else pa.binary()


def field_value(field: str, data: bytes | None) -> str | bytes | None:
    """Return a field's value as its column has it; None for JSON that is none."""
    if data is None or field_type(field) == pa.binary():
        return data
    if field.rpartition(".")[2] == "json" and _parsed(data) is None:
        return None
    return data.decode("utf-8", "replace")


def _text(data: bytes | None) -> str | None:
    """Return a label as text; None where it is empty or no UTF-8."""
    try:
        return None if data is None else data.decode("utf-8-sig").strip() or None
    except UnicodeDecodeError:
        return None


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def json_value(data: bytes | None, path: str) -> str | None:
    """Return a value within JSON as text, by its name or by names with dots between them; None where there is none."""
    value = None if data is None else _parsed(data)
    for name in [path] if isinstance(value, dict) and path in value else path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair, Arrow can't
