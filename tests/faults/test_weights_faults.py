"""Weights that are hard to get: servers that break off, processes that die, disks that get full, damaged copies."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.backbones import weights
from pipeline.errors import WeightsError, WeightsUnavailable
from pipeline.storage import file_sha256
from tests.faults.small_disk import small_disk
from tests.faults.weights_server import Way, serve
from tests.integration.processes import ROOT

pytestmark = pytest.mark.faults

#: Long enough that half of it doesn't fit into any buffer on the way.
STATE = {"weight": torch.arange(2**19, dtype=torch.float32)}
#: No waits between attempts.
SOON = (0.0, 0.0)


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    save_file(STATE, tmp_path / "original.safetensors")
    return (tmp_path / "original.safetensors").read_bytes()


def files(cache: Path) -> list[Path]:
    """Return what a cache holds, but for locks."""
    return sorted(path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def check(state: dict[str, torch.Tensor], cache: Path) -> None:
    """Check that the weights are the right ones, and all that is in the cache."""
    assert torch.equal(state["weight"], STATE["weight"])
    copy, record = files(cache)
    assert torch.equal(load_file(copy)["weight"], STATE["weight"])
    assert record.read_text() == file_sha256(copy)


@pytest.mark.parametrize("way", ["error", "half", "half-unannounced", "half-as-whole"])
def test_load__a_server_that_fails_at_first(way: Way, content: bytes, tmp_path: Path) -> None:
    with serve(content, way, "whole") as server:
        check(weights.load(server.url, str(tmp_path / "cache"), SOON), tmp_path / "cache")
        assert server.requests == 2
        check(weights.load(server.url, str(tmp_path / "cache"), SOON), tmp_path / "cache")
        assert server.requests == 2  # from the cache


@pytest.mark.parametrize("way", ["error", "half"])
def test_load__a_server_that_keeps_failing_leaves_nothing(way: Way, content: bytes, tmp_path: Path) -> None:
    with serve(content, way) as server, pytest.raises(WeightsUnavailable, match="after 3 attempt"):
        weights.load(server.url, str(tmp_path / "cache"), SOON)
    assert server.requests == 3
    assert files(tmp_path / "cache") == []


@pytest.mark.parametrize("way", ["half-unannounced", "half-as-whole"])
def test_load__half_a_file_that_looks_whole_is_never_used_and_not_kept_for_good(
    way: Way, content: bytes, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with serve(content, way, way, "whole") as server:
        with pytest.raises(WeightsError, match="can't be read"):
            weights.load(server.url, str(cache), SOON)
        assert server.requests == 2
        check(weights.load(server.url, str(cache), SOON), cache)


@pytest.mark.parametrize("damage", ["half a copy", "changed copy", "empty record", "record of odd bytes", "no record"])
def test_load__a_damaged_cache_is_filled_anew(damage: str, content: bytes, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with serve(content, "whole") as server:
        weights.load(server.url, str(cache), SOON)
        copy, record = files(cache)
        if damage == "half a copy":
            copy.write_bytes(content[: len(content) // 2])
        elif damage == "changed copy":
            copy.write_bytes(content[:-1] + b"\0")
        elif damage == "no record":  # of a version that kept none; what was written then may be half a file
            copy.write_bytes(content[: len(content) // 2])
            record.unlink()
        else:
            record.write_bytes(b"" if damage == "empty record" else b"\xff\xfe\x00")
        check(weights.load(server.url, str(cache), SOON), cache)
        assert server.requests == 2


def fetching(url: str, cache: Path, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a process that fetches weights and prints where they are, or why they can't be had."""
    code = (
        "import sys\nfrom pipeline.backbones.fetch import fetch\nfrom pipeline.errors import WeightsUnavailable\n"
        "try:\n    print(fetch(*sys.argv[1:], backoff_s=(0.0, 0.0)))\n"
        "except WeightsUnavailable as error:\n    print('unavailable:', error)\n"
    )
    command = [*prefix, sys.executable, "-c", code, url, str(cache)]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def test_fetch__a_process_that_is_killed_while_it_writes(content: bytes, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with serve(content, "stalls", "whole") as server:
        process = fetching(server.url, cache)
        assert server.half_sent.wait(120)
        while not [path for path in files(cache) if path.stat().st_size]:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        (left,) = files(cache)
        assert left.name.startswith(".")  # no name that anybody takes for the weights
        assert left.stat().st_size < len(content)
        check(weights.load(server.url, str(cache), SOON), cache)  # and nothing else is left


def test_fetch__two_processes_at_once_share_one_download(content: bytes, tmp_path: Path) -> None:
    with serve(content, "whole") as server:
        processes = [fetching(server.url, tmp_path / "cache") for _ in range(2)]
        first, second = (process.communicate(timeout=120)[0] for process in processes)
    assert first == second
    assert Path(first.strip()).read_bytes() == content
    assert server.requests == 1


def test_fetch__a_cache_on_a_full_disk(content: bytes, tmp_path: Path) -> None:
    with serve(content, "whole") as server, small_disk(tmp_path / "disk", "1m") as disk:
        said, _ = fetching(server.url, disk.place / "cache", disk.prefix).communicate(timeout=120)
        assert said.startswith("unavailable: Expected weights at http://127.0.0.1")
        assert f"after 1 attempt(s): OSError: [Errno 28] No space left on device: '{disk.place}/cache/weights/" in said
        assert "Free space there, or raise the quota" in said
        assert server.requests == 1  # to try at once again would be of no use
        assert files(disk.seen / "cache") == []
        disk.resize("10m")
        said, _ = fetching(server.url, disk.place / "cache", disk.prefix).communicate(timeout=120)
        assert said.startswith(str(disk.place / "cache"))
