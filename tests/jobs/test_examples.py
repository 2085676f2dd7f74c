"""examples/*.md: every command, as it stands there, on fewer images."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import demo, embed, train
from pipeline.table import embeddings
from tests.integration.processes import ROOT
from tests.jobs.test_jobs import rows, run

pytestmark = pytest.mark.usefixtures("ray_cluster")

JOBS = {"jobs.embed": embed, "jobs.train": train}
#: Images of each digit and split that are left of the demo's.
IMAGES = {"train": 6, "test": 3}


def commands(name: str) -> list[list[str]]:
    """Return the lines of each block of commands."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "examples" / name).read_text(), re.DOTALL)
    return [block.strip().splitlines() for block in blocks]


def run_block(block: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Run the lines of a block, jobs in this process, and return the jobs' records."""
    records = []
    for line in block:
        if line.startswith("python -m "):
            _, _, name, *arguments = shlex.split(line)
            code, record = run(capsys, JOBS[name], *arguments)
            assert code == 0, record["stderr"]
            records.append(record)
        elif not line.startswith("make demo"):  # whose images are there already
            subprocess.run(["bash", "-c", line], check=True)
    return records


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with a few of the demo's images."""
    demo.write_digits(tmp_path / "out" / "demo" / "images")
    for split, count in IMAGES.items():
        for digit in (tmp_path / "out" / "demo" / "images" / split).iterdir():
            for path in sorted(digit.iterdir())[count:]:
                path.unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_add_a_class__embeds_the_new_images_only_and_tells_before_from_after(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = commands("add_a_class.md")
    embedded, nine = run_block(first, capsys)
    table = folder / "out" / "digits-table"
    before = {path.name: path.read_bytes() for path in (table / "data").iterdir()}
    assert embedded["new"]["embedded"] == 9 * 9
    assert nine["classes"] == [str(digit) for digit in range(9)]
    assert nine["before_after"] is None

    embedded, ten = run_block(second, capsys)
    assert embedded["new"] == {"embedded": 9, "reused": 0, "rejected": 0}
    after = {path.name: path.read_bytes() for path in (table / "data").iterdir()}
    assert {name: after[name] for name in before} == before, "what was embedded is not touched"
    assert len(rows(table)) == 10 * 9
    assert ten["classes"] == [str(digit) for digit in range(10)]

    report = ten["before_after"]
    assert report["part"] == "test"
    assert report["new_classes"] == ["9"]
    assert (report["old_rows"], report["new_rows"]) == (9 * 3, 3)
    assert report["old_top1_before"] == nine["metrics"]["test"]["top1"]
    counts = np.asarray(ten["metrics"]["test"]["confusion"]["counts"])
    assert report["old_top1_after"] == pytest.approx(np.trace(counts[:9]) / (9 * 3))
    assert report["new_top1"] == pytest.approx(counts[9, 9] / 3)
    assert report["old_as_new"]["count"] == counts[:9, 9].sum()
    assert report["new_as_old"]["count"] == counts[9, :9].sum()
    assert (report["images_new"], report["not_embedded_again"]) == (9, 9 * 9)
    assert report["seconds_saved"] > 0
    assert embeddings(rows(table)["embedding"]).shape == (90, 2048)
