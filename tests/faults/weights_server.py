"""A web server of one file that goes wrong in the ways that web servers do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from tests.servers import running

#: What a request gets: the file; an error; half of the file and then the end of the connection, after all of it, no
#: length, or that half was announced; or half of it and then nothing at all.
Way = Literal["whole", "error", "half", "half-unannounced", "half-as-whole", "stalls"]


class WeightsServer(ThreadingHTTPServer):
    """Serves a file under any path.

    Args:
        content: The file.
        ways: What the first requests for it get; the last one is what all further requests get.
    """

    daemon_threads = True

    def __init__(self, content: bytes, *ways: Way) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ways = content, list(ways)
        self.requests = 0
        self.half_sent, self.lock, self.closed = threading.Event(), threading.Lock(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/w.safetensors"

    def next_way(self) -> Way:
        with self.lock:
            self.requests += 1
            return self.ways.pop(0) if len(self.ways) > 1 else self.ways[0]


class Handler(BaseHTTPRequestHandler):
    server: WeightsServer

    def do_HEAD(self) -> None:
        if self.server.ways[0] == "error":
            self.send_error(500)
            return
        self.start(len(self.server.content))

    def do_GET(self) -> None:
        way, content = self.server.next_way(), self.server.content
        if way == "error":
            self.send_error(500)
            return
        half = len(content) // 2
        self.start({"half-unannounced": None, "half-as-whole": half}.get(way, len(content)))
        self.wfile.write(content if way == "whole" else content[:half])
        self.server.half_sent.set()
        if way == "stalls":
            self.server.closed.wait()

    def start(self, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(content: bytes, *ways: Way) -> Iterator[WeightsServer]:
    with running(WeightsServer(content, *ways)) as server:
        try:
            yield server
        finally:
            server.closed.set()
