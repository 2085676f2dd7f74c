"""The examples of docs/sources.md, as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from jobs import embed
from tests.example_sources import write_examples
from tests.integration.processes import ROOT
from tests.jobs.test_jobs import rows, run

pytestmark = pytest.mark.usefixtures("ray_cluster")

TEXT = (ROOT / "docs" / "sources.md").read_text()
FORMATS = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)


def example(name: str) -> list[str]:
    """Return the arguments of the example in a section."""
    section = TEXT.split(f"\n## {name}\n")[1].split("\n## ")[0]
    (command,) = re.findall(r"```bash\n(python -m jobs\.embed .*?)```", section, re.DOTALL)
    return shlex.split(command.replace("\\\n", " "))[3:]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    (folder / "examples").mkdir()
    write_examples(folder / "examples")
    return folder


EXTRAS = {
    "folder": [],
    "manifest": ["sku", "price"],
    "webdataset": ["json", "txt"],
    "parquet": [],
    "huggingface": ["image_path"],
}


def test_sources__every_format_has_an_example() -> None:
    assert set(FORMATS) == set(EXTRAS)


@pytest.mark.parametrize("name", EXTRAS)
def test_sources__the_example_runs(
    name: str, examples: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(examples)
    code, record = run(capsys, embed, *example(name))
    assert code == 0, record["stderr"]
    assert record["source"]["identity"].startswith(f"{name} ")
    assert record["ledger"]["embedded"] == 8
    found = rows(examples / "out" / name)
    assert set(found["label"].to_pylist()) == {"flower", "palace"}
    assert found.schema.names[7:] == EXTRAS[name]
