"""Suites: those of the package, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.bundled import BUNDLED
from pipeline.errors import ConfigError
from pipeline.probe import Suite, builtin_suites, load_suite
from pipeline.probe.suite import BUNDLED_PREFIX


def suite(**changes: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "datasets": [{"name": "photos", "source": "photos"}],
        "backbones": [{"name": "pixels", "backbone": "pixels"}],
        **changes,
    }


def load(folder: Path, content: Any) -> Suite:
    path = folder / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_suite(str(path))


def test_load_suite__those_of_the_package() -> None:
    assert builtin_suites() == ["demo", "microsoft-vision"]
    demo = load_suite("demo")
    assert {dataset.source.removeprefix(BUNDLED_PREFIX) for dataset in demo.datasets} == set(BUNDLED)
    names = [dataset.name for dataset in load_suite("microsoft-vision").datasets]
    assert names == ["cifar-10", "cifar-100", "stl-10", "svhn", "cub", "flowers-102", "imagenet"]


def test_load_suite__the_published_numbers_have_the_published_means() -> None:
    datasets = load_suite("microsoft-vision").datasets
    means = {name: sum(d.published[name] for d in datasets) / len(datasets) for name in datasets[0].published}
    assert {name: round(value, 2) for name, value in means.items()} == {
        "Microsoft Vision": 84.97,
        "Google Big Transfer": 84.32,
        "OpenAI CLIP": 76.72,
        "PyTorch ResNet-50": 69.14,
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": []}, "dataset: not known"),
        ({"datasets": []}, "datasets: tuple should have at least 1 item"),
        ({"datasets": [{"name": "photos"}]}, "datasets.0.source: required, but not there"),
        ({"datasets": [{"name": "a/b", "source": "x"}]}, "datasets.0.name: string should match pattern"),
        (
            {"datasets": [{"name": "photos", "source": "x", "source_options": {"label": "none"}}]},
            "datasets.0: source_options: Option --label is not known",
        ),
        (
            {"datasets": [{"name": "photos", "source": "x", "source_options": {"source": "y"}}]},
            "datasets.0: source_options: ",
        ),
        (
            {"datasets": [{"name": "photos", "source": "x", "splits": {"validation": "test"}}]},
            "datasets.0.splits: expected different splits for train, validation and test, got train, test, test",
        ),
        (
            {"datasets": [{"name": "photos", "source": "x", "metric": "accuracy"}]},
            "datasets.0.metric: input should be 'top1' or 'mean_per_class'",
        ),
        ({"datasets": 2 * [{"name": "photos", "source": "x"}]}, "suite: expected datasets with different names, got"),
        ({"backbones": 2 * [{"name": "a", "backbone": "pixels"}]}, "suite: expected backbones with different names"),
        (
            {
                "datasets": [{"name": name, "source": "x"} for name in ("a", "a-b")],
                "backbones": [{"name": name, "backbone": "pixels"} for name in ("b-c", "c")],
            },
            "suite: expected names that give different folders, got a-b-c more than once",
        ),
        (
            {"datasets": [{"name": "photos", "source": "x", "published": {"theirs": 90.0}}]},
            "suite: expected published_source",
        ),
    ],
)
def test_load_suite__says_what_is_wrong_and_where(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert load(tmp_path, suite()).name == "mine"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, suite(**changes))
    assert f"\n{said}" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- a\n- b\n", "Expected a suite's fields by name"),
        ("a: [b", "Expected a suite as YAML"),
        ({1: 2}, "can't be used"),
    ],
)
def test_load_suite__no_suite_at_all(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, content)


def test_load_suite__names_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="one of demo, microsoft-vision, or a YAML file; got imagenet"):
        load_suite("imagenet")
