"""Weights files: downloads that fail half-way, and the copies that are kept."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.backbones.fetch import fetch
from pipeline.errors import WeightsError, WeightsUnavailable
from pipeline.storage import file_sha256

CONTENT = bytes(range(256)) * 100


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
def serve() -> Iterator[type[Server]]:
    servers: list[Server] = []

    def start(failures: int = 0, how: str = "503") -> Server:
        server = Server(CONTENT, failures, how)
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
    first, second = fetch(server.url, cache), fetch(server.url, cache)
    assert first == second
    assert first.read_bytes() == server.content
    assert server.downloads == 1
    assert Path(f"{first}.sha256").read_text() == file_sha256(first)


def test_fetch__many_at_once_share_one_download(serve: type[Server], tmp_path: Path) -> None:
    server = serve()  # type: ignore[call-arg]
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: fetch(server.url, str(tmp_path / "cache")), range(8)))
    assert len(paths) == 1
    assert server.downloads == 1


@pytest.mark.parametrize("how", ["503", "half"])
def test_fetch__survives_failures_and_never_shows_half_a_file(serve: type[Server], tmp_path: Path, how: str) -> None:
    server = serve(failures=2, how=how)  # type: ignore[call-arg]
    path = fetch(server.url, str(tmp_path / "cache"), backoff_s=(0.01, 0.01, 0.01))
    assert path.read_bytes() == server.content
    assert not [name for name in path.parent.iterdir() if name.name.endswith(".tmp")]


def test_fetch__gives_up_with_the_alternatives_and_leaves_no_file(serve: type[Server], tmp_path: Path) -> None:
    server = serve(failures=99)  # type: ignore[call-arg]
    secret = server.url.replace("http://", "http://user:hunter2@") + "?sig=hunter2"
    with pytest.raises(WeightsUnavailable, match=r"after 3 attempt.*--weights PATH.*--weights random:0") as caught:
        fetch(secret, str(tmp_path / "cache"), backoff_s=(0.01, 0.01))
    assert "hunter2" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_fetch__replaces_a_damaged_copy(serve: type[Server], tmp_path: Path) -> None:
    server = serve()  # type: ignore[call-arg]
    path = fetch(server.url, str(tmp_path / "cache"))
    path.write_bytes(path.read_bytes()[:-1])
    assert fetch(server.url, str(tmp_path / "cache")).read_bytes() == server.content


def test_fetch__a_local_file_is_used_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    assert fetch(str(tmp_path / "w.pt"), str(tmp_path / "cache")) == tmp_path / "w.pt"
    assert not (tmp_path / "cache").exists()
    with pytest.raises(WeightsError, match="found none"):
        fetch(str(tmp_path / "nothing.pt"), str(tmp_path / "cache"))
