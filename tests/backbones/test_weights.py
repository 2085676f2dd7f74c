"""Weights: every accepted form, strict fitting, no code run, downloads that fail half-way."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.backbones import weights
from pipeline.backbones.load import random_seed
from pipeline.errors import ConfigError, WeightsError, WeightsUnavailable
from pipeline.storage import file_sha256


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return weights.build_random(small_network, 1).state_dict()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".tar"])
def test_read_state_dict__reads_pytorch_files(
    state: dict[str, torch.Tensor], tmp_path: Path, suffix: str, prefix: str, wrapped: bool
) -> None:
    content = {prefix + key: value for key, value in state.items()}
    torch.save({"epoch": 3, "state_dict": content} if wrapped else content, tmp_path / f"w{suffix}")
    read = weights.read_state_dict(tmp_path / f"w{suffix}")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_read_state_dict__reads_pytorchs_old_format(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.tar", _use_new_zipfile_serialization=False)
    assert weights.read_state_dict(tmp_path / "w.tar").keys() == state.keys()


def test_read_state_dict__reads_safetensors(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file({f"module.{key}": value for key, value in state.items()}, tmp_path / "w.safetensors")
    assert weights.read_state_dict(tmp_path / "w.safetensors").keys() == state.keys()


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_read_state_dict__runs_no_code(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": state, "extra": Evil(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="could run code"):
        weights.read_state_dict(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_read_state_dict__says_what_is_wrong_with_a_damaged_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"<html>no weights</html>")
    with pytest.raises(WeightsError, match=name):
        weights.read_state_dict(tmp_path / name)


def test_read_state_dict__says_what_it_got_instead(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="a dict with the keys model"):
        weights.read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.bias"), r"1 missing: 0\.bias"),
        (lambda s: s.update({"fc.weight": torch.zeros(1)}), r"1 unknown: fc\.weight"),
        (lambda s: s.update({"0.bias": torch.zeros(5)}), r"1 of another shape: 0\.bias \(5,\) instead of \(4,\)"),
    ],
)
def test_load_strictly__refuses(state: dict[str, torch.Tensor], change: object, message: str) -> None:
    changed = dict(state)
    change(changed)  # type: ignore[operator]
    network = weights.build_random(small_network, 2)
    before = weights.tensors_sha256(network)
    with pytest.raises(WeightsError, match=message):
        weights.load_strictly(network, changed, "w.pt")
    assert weights.tensors_sha256(network) == before


def test_load_strictly__does_without_batch_norms_counter(state: dict[str, torch.Tensor]) -> None:
    network = weights.build_random(small_network, 2)
    weights.load_strictly(network, {k: v for k, v in state.items() if "num_batches" not in k}, "w.pt")
    assert weights.tensors_sha256(network) == weights.tensors_sha256(weights.build_random(small_network, 1))


def test_tensors_sha256__tells_values_and_names_apart() -> None:
    digests = {weights.tensors_sha256(weights.build_random(small_network, seed)) for seed in (1, 1, 2)}
    assert len(digests) == 2


def test_build_random__leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    weights.build_random(small_network, 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("text", ["random:", "random:x", "random:-1", "random:1.5", "random:99999999999"])
def test_random_seed__refuses(text: str) -> None:
    with pytest.raises(ConfigError, match="random:SEED"):
        random_seed(text)


class Server(http.server.ThreadingHTTPServer):
    """Serves one file at any path; the first ``failures`` requests for it fail as ``how`` says."""

    def __init__(self, content: bytes, failures: int = 0, how: str = "503") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.failures, self.how, self.downloads = content, failures, how, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/w.safetensors"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.respond(body=False)

    def do_GET(self) -> None:
        if self.server.failures > 0:
            self.server.failures -= 1
            if self.server.how == "503":
                self.send_error(503)
                return
            self.respond(body=False)
            self.wfile.write(self.server.content[: len(self.server.content) // 2])
            self.close_connection = True
            return
        self.server.downloads += 1
        self.respond(body=True)

    def respond(self, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        if body:
            self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(state: dict[str, torch.Tensor], tmp_path: Path) -> Iterator[type[Server]]:
    save_file(state, tmp_path / "original.safetensors")
    content = (tmp_path / "original.safetensors").read_bytes()
    servers: list[Server] = []

    def start(failures: int = 0, how: str = "503") -> Server:
        server = Server(content, failures, how)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start  # type: ignore[misc]
    for server in servers:
        server.shutdown()
        server.server_close()


def test_fetch__downloads_once(serve: type[Server], tmp_path: Path) -> None:
    server = serve()  # type: ignore[call-arg]
    cache = str(tmp_path / "cache")
    first, second = weights.fetch(server.url, cache), weights.fetch(server.url, cache)
    assert first == second
    assert first.read_bytes() == server.content
    assert server.downloads == 1
    assert Path(f"{first}.sha256").read_text() == file_sha256(first)


def test_fetch__many_at_once_share_one_download(serve: type[Server], tmp_path: Path) -> None:
    server = serve()  # type: ignore[call-arg]
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: weights.fetch(server.url, str(tmp_path / "cache")), range(8)))
    assert len(paths) == 1
    assert server.downloads == 1


@pytest.mark.parametrize("how", ["503", "half"])
def test_fetch__survives_failures_and_never_shows_half_a_file(serve: type[Server], tmp_path: Path, how: str) -> None:
    server = serve(failures=2, how=how)  # type: ignore[call-arg]
    path = weights.fetch(server.url, str(tmp_path / "cache"), backoff_s=(0.01, 0.01, 0.01))
    assert path.read_bytes() == server.content
    assert not [name for name in path.parent.iterdir() if name.name.endswith(".tmp")]


def test_fetch__gives_up_with_the_alternatives_and_leaves_no_file(serve: type[Server], tmp_path: Path) -> None:
    server = serve(failures=99)  # type: ignore[call-arg]
    secret = server.url.replace("http://", "http://user:hunter2@") + "?sig=hunter2"
    with pytest.raises(WeightsUnavailable, match=r"after 3 attempt.*--weights PATH.*--weights random:0") as caught:
        weights.fetch(secret, str(tmp_path / "cache"), backoff_s=(0.01, 0.01))
    assert "hunter2" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_fetch__replaces_a_damaged_copy(serve: type[Server], tmp_path: Path) -> None:
    server = serve()  # type: ignore[call-arg]
    path = weights.fetch(server.url, str(tmp_path / "cache"))
    path.write_bytes(path.read_bytes()[:-1])
    assert weights.fetch(server.url, str(tmp_path / "cache")).read_bytes() == server.content


def test_fetch__a_local_file_is_used_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    assert weights.fetch(str(tmp_path / "w.pt"), str(tmp_path / "cache")) == tmp_path / "w.pt"
    assert not (tmp_path / "cache").exists()
    with pytest.raises(WeightsError, match="found none"):
        weights.fetch(str(tmp_path / "nothing.pt"), str(tmp_path / "cache"))
