"""A suite: which datasets and which backbones are compared, as data in a YAML file."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from pipeline.errors import ConfigError
from pipeline.sources.options import SourceOptions

Metric = Literal["top1", "mean_per_class"]
Part = Literal["train", "validation", "test"]

#: Stands for the folder that --data names, in a dataset's source.
DATA = "{data}"
#: Begins the source of a dataset that comes with the package's dependencies, see `pipeline.bundled`.
BUNDLED_PREFIX = "bundled:"

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]  # it becomes the name of a folder


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Splits(_Entry):
    """Which rows are for what; what has no split of its own is held out of train, by content.

    Args:
        train: The table's split to fit to.
        validation: The one to choose C by; None: a share of train is held out.
        test: The one to report on; None: a share of train is held out.
        validation_fraction: That share of each class.
        test_fraction: Likewise.
    """

    train: str = "train"
    validation: str | None = None
    test: str | None = "test"
    validation_fraction: float = Field(0.2, gt=0, lt=1)
    test_fraction: float = Field(0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _distinct(self) -> Splits:
        named = [name for name in (self.train, self.validation, self.test) if name is not None]
        if len(set(named)) < len(named):
            raise ValueError(f"expected different splits for train, validation and test, got {', '.join(named)}")
        return self


class Dataset(_Entry):
    """A dataset of images with one label each.

    Args:
        name: In paths: lower-case letters, digits, dots and dashes.
        title: In tables; unset: the name.
        source: As ``--source``; ``{data}`` stands for --data, and ``bundled:NAME`` is one of `pipeline.bundled`.
        source_options: Other options of `pipeline.sources.options.SourceOptions`: format, label_from, columns, …
        splits: Which rows are for what.
        metric: What its cell in the table tells.
        num_images: Labelled images that each named split should have; a difference is reported.
        num_classes: Classes that it should have; a difference is reported.
        homepage: Where it is described.
        citation: Its paper.
        licence: What is known of the terms of use.
        get: How to get it, ``{data}`` as in the source.
        published: Numbers of others on it (percent), by the column that they belong in.
    """

    name: _Name
    title: str = ""
    source: str
    source_options: dict[str, Any] = {}
    splits: Splits = Splits()
    metric: Metric = "top1"
    num_images: dict[Part, int] = {}
    num_classes: int | None = None
    homepage: str = ""
    citation: str = ""
    licence: str = ""
    get: str = ""
    published: dict[str, float] = {}

    @model_validator(mode="after")
    def _source_makes_sense(self) -> Dataset:
        try:
            SourceOptions(source=self.source, **self.source_options)
        except (ConfigError, TypeError) as error:
            raise ValueError(f"source_options: {error}") from None
        return self

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return self.title or self.name


class BackboneEntry(_Entry):
    """A backbone, as jobs.embed takes it.

    Args:
        name: In paths and tables.
        backbone: As ``--backbone``.
        weights: As ``--weights``.
        preprocess: As ``--preprocess``.
    """

    name: _Name
    backbone: str
    weights: str = "auto"
    preprocess: str | None = None


class Suite(_Entry):
    """Datasets and backbones to compare.

    Args:
        name: Of the report's files.
        description: In the report.
        datasets: The rows of its table.
        backbones: The columns.
        published_source: Where the datasets' ``published`` numbers come from.
    """

    name: _Name
    description: str = ""
    datasets: Annotated[tuple[Dataset, ...], Field(min_length=1)]
    backbones: Annotated[tuple[BackboneEntry, ...], Field(min_length=1)]
    published_source: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        for what, entries in (("datasets", self.datasets), ("backbones", self.backbones)):
            twice = [name for name, count in Counter(entry.name for entry in entries).items() if count > 1]
            if twice:
                raise ValueError(f"expected {what} with different names, got {', '.join(twice)} more than once")
        folders = Counter(f"{dataset.name}-{backbone.name}" for dataset in self.datasets for backbone in self.backbones)
        shared = [name for name, count in folders.items() if count > 1]
        if shared:
            raise ValueError(f"expected names that give different folders, got {', '.join(shared)} more than once")
        if any(dataset.published for dataset in self.datasets) and not self.published_source:
            raise ValueError("expected published_source, which says where the published numbers come from")
        return self


def builtin_suites() -> list[str]:
    """Return the names of the suites that come with the package."""
    folder = resources.files("pipeline.probe") / "suites"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_suite(name_or_file: str) -> Suite:
    """Read a suite that comes with the package, by its name, or a YAML file.

    Raises:
        ConfigError: There is none, or it isn't as a suite should be.
    """
    if name_or_file in builtin_suites():
        text = (resources.files("pipeline.probe") / "suites" / f"{name_or_file}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name_or_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            names = ", ".join(builtin_suites())
            raise ConfigError(
                f"Expected --suite to be one of {names}, or a YAML file; got {name_or_file}: {error}"
            ) from None
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"Expected a suite as YAML in {name_or_file}: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"Expected a suite's fields by name in {name_or_file}, got a {type(content).__name__}.")
    try:
        return Suite(**content)
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"The suite {name_or_file} can't be used.\n{_explained(error)}\nSee docs/probe.md.") from None


def _explained(error: ValidationError | TypeError) -> str:
    """Return one line for each thing that is wrong."""
    if isinstance(error, TypeError):
        return str(error)
    lines = []
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"]) or "suite"
        if item["type"] == "missing":
            lines.append(f"{place}: required, but not there")
        elif item["type"] == "extra_forbidden":
            lines.append(f"{place}: not known")
        else:
            text = item["msg"].removeprefix("Value error, ")
            lines.append(f"{place}: {text[0].lower()}{text[1:]}")
    return "\n".join(lines)
