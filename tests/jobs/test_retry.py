"""Rejects that are taken up again."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs import embed, retry
from tests import samples, tiffs
from tests.oracle import check

pytestmark = pytest.mark.usefixtures("ray_cluster")


def run(capsys: pytest.CaptureFixture[str], job: Any, *arguments: object) -> tuple[int, dict[str, Any]]:
    code = job.main([*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    record = next(line for line in out.splitlines() if line.startswith("{"))
    return code, {**json.loads(record), "stderr": err}


def rejects(table: Path) -> list[str]:
    rows = pq.read_table(table / "rejects").to_pylist()
    return sorted(f"{row['uri'].rpartition('/')[2]} {row['code']}" for row in rows)


def test_retry__by_code_after_the_limits_and_the_files_were_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, table = tmp_path / "images", tmp_path / "table"
    planned = [str(samples.write(source / f"{i}.jpg", samples.jpeg(i))) for i in range(6)]
    planned.append(str(samples.write(source / "large.jpg", samples.jpeg(7, 200, 300))))
    planned.append(str(samples.write(source / "bad.jpg", b"no image")))
    common = ("--max-reject-fraction", 1, "--max-image-pixels", 20_000)
    code, record = run(
        capsys, embed, "--source", source, "--table", table, "--backbone", "pixels", "--unit-size", 3, *common
    )
    assert (code, rejects(table)) == (0, ["bad.jpg unsupported", "large.jpg too_large"])

    code, record = run(capsys, retry, "--table", table, *common)  # nothing was mended
    assert (code, record["again"], record["new"]["rejected"]) == (0, 2, 2)
    assert rejects(table) == ["bad.jpg unsupported", "large.jpg too_large"]
    check(str(table), planned)

    samples.write(source / "bad.jpg", samples.jpeg(8))
    code, record = run(capsys, retry, "--table", table, "--code", "too_large", "--max-reject-fraction", 1)
    assert (code, record["again"], record["new"]["embedded"]) == (0, 1, 1)
    assert record["ledger"] == {"planned": 8, "embedded": 7, "rejected": 1, "pending": 0, "reused": 0}
    assert rejects(table) == ["bad.jpg unsupported"]
    check(str(table), planned)

    code, record = run(capsys, retry, "--table", table, "--code", "unsupported", "--code", "empty")
    assert (code, record["again"], record["ledger"]["embedded"]) == (0, 1, 8)
    assert rejects(table) == []
    check(str(table), planned)

    before = {path: path.read_bytes() for path in table.rglob("*") if path.is_file()}
    code, record = run(capsys, retry, "--table", table)
    assert (code, record["again"]) == (0, 0)
    assert "Nothing to do" in record["stderr"]
    code, record = run(capsys, embed, "--source", source, "--table", table, "--backbone", "pixels")
    assert (code, record["new"]) == (0, {"embedded": 1, "reused": 1, "rejected": 0})  # its version is another one
    check(str(table), planned)
    assert {path for path in before if not path.exists()} == set()


def test_retry__a_shard_is_read_again_and_its_other_images_are_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard, table = tmp_path / "shard.tar", tmp_path / "table"
    with tarfile.open(shard, "w") as tar:
        for i, data in enumerate([samples.jpeg(0), samples.jpeg(1, 200, 300), samples.jpeg(2)]):
            info = tarfile.TarInfo(f"{i}.jpg")
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
    common = ("--max-reject-fraction", 1)
    arguments = ("--source", shard, "--table", table, "--backbone", "pixels", "--max-image-pixels", 20_000)
    code, record = run(capsys, embed, *arguments, *common)
    assert (code, rejects(table)) == (0, ["shard.tar#1.jpg too_large"])
    code, record = run(capsys, retry, "--table", table)
    assert (code, record["new"]) == (0, {"embedded": 3, "reused": 2, "rejected": 0})
    check(str(table), [f"{shard}#{i}.jpg" for i in range(3)])


def test_retry__says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert retry.main(["--table", str(tmp_path / "nothing")]) == 2
    assert "found no table.json there" in capsys.readouterr().err
    assert retry.main(["--table", str(tmp_path), "--code", "no_such"]) == 2
    assert "Option --code" in capsys.readouterr().err


def test_retry__takes_up_tiffs_once_they_are_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, table, allowed = tmp_path / "images", tmp_path / "table", tmp_path / "allowed"
    images = {"a.jpg": samples.jpeg(1), **{name: tiffs.tiff_images()[name] for name in ("plain.tiff", "16-bit.tiff")}}
    planned = [str(samples.write(source / name, data)) for name, data in images.items()]
    common = ("--source", source, "--backbone", "pixels", "--max-reject-fraction", 1)
    code, record = run(capsys, embed, *common, "--table", allowed, "--allow-tiff")
    assert (code, record["ledger"]["embedded"], rejects(allowed)) == (0, 3, [])

    code, record = run(capsys, embed, *common, "--table", table)
    assert (code, rejects(table)) == (0, ["16-bit.tiff unsupported", "plain.tiff unsupported"])
    code, record = run(capsys, retry, "--table", table, "--code", "unsupported", "--allow-tiff")
    assert (code, record["again"], record["ledger"]["embedded"], rejects(table)) == (0, 2, 3, [])
    check(str(table), planned)
