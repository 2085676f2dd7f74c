"""An HTTP proxy before the local S3 server that does what stores and networks do on a bad day.

It forwards every request as it is, but for those that a `Fault` hits. It serves from a thread of the test's process, so
that a test can put in a fault, lift it and see what it has hit, while processes of a cluster talk to the same address.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote
from xml.sax.saxutils import escape

import aiohttp
from aiohttp import web
from yarl import URL

_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect")
#: The conditions of a PUT.
CONDITIONS = ("If-Match", "If-None-Match")
_MESSAGES = {
    "SlowDown": "Please reduce your request rate.",
    "ServiceUnavailable": "Service is unable to handle request.",
    "AccessDenied": "Access Denied",
    "ExpiredToken": "The provided token has expired.",
    "NotImplemented": "A header you provided implies functionality that is not implemented.",
}

#: refuse: an S3 error, and nothing is forwarded. swallow: forwarded, but no answer comes back. cut: forwarded, and the
#: connection ends in the middle of the answer. ignore: forwarded without some headers.
Action = Literal["refuse", "swallow", "cut", "ignore"]


@dataclass
class Fault:
    """What goes wrong with which requests, and how often it did.

    Args:
        action: What happens to them.
        methods: Of these methods only; none: of all.
        key: Regular expression that is found in the path and query, decoded, as in ``/bucket/a/key``.
        headers: Only requests with one of these headers; the headers that are ignored.
        skip: So many go through first.
        every: Of the others, each so manieth is hit.
        times: So many are hit in all; None: no end.
        each_key: Count ``skip``, ``every`` and ``times`` for each method and path by itself.
        status: The answer of a refusal.
        code: Its S3 error code.

    Attributes:
        hits: Requests that were hit, by method and path.
    """

    action: Action = "refuse"
    methods: tuple[str, ...] = ()
    key: str = ""
    headers: tuple[str, ...] = ()
    skip: int = 0
    every: int = 1
    times: int | None = None
    each_key: bool = False
    status: int = 503
    code: str = "SlowDown"
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    _taken: Counter[tuple[str, str]] = field(default_factory=Counter)

    def takes(self, request: web.Request) -> bool:
        """Return whether a request is hit, and count it."""
        method, path = request.method, unquote(request.raw_path)
        if (self.methods and method not in self.methods) or not re.search(self.key, path):
            return False
        if self.headers and not any(name in request.headers for name in self.headers):
            return False
        counted = (method, path) if self.each_key else ("", "")
        number = self._seen[counted] - self.skip
        self._seen[counted] += 1
        if number < 0 or (number + 1) % self.every or (self.times is not None and self._taken[counted] >= self.times):
            return False
        self._taken[counted] += 1
        self.hits[method, path] += 1
        return True


class FaultProxy:
    """A running proxy.

    Args:
        upstream: Address of the server behind it.

    Attributes:
        endpoint: Its own address.
        requests: What came in, by method and path, hit or not.
    """

    def __init__(self, upstream: str) -> None:
        self.endpoint = ""
        self.requests: Counter[tuple[str, str]] = Counter()
        self._upstream, self._lock = upstream, threading.Lock()
        self._faults: list[Fault] = []
        self._session: aiohttp.ClientSession

    @property
    def options(self) -> dict[str, Any]:
        """Storage options that lead through it."""
        return {"endpoint_url": self.endpoint}

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[Fault]:
        """Put in a fault for the length of a block."""
        with self._lock:
            self._faults.append(fault)
        try:
            yield fault
        finally:
            with self._lock:
                self._faults = [each for each in self._faults if each is not fault]

    def count(self, *methods: str, key: str = "") -> int:
        """Return how many requests of these methods came in."""
        with self._lock:
            return sum(n for (method, path), n in self.requests.items() if method in methods and re.search(key, path))

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set."""
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        # A connection a request: the server may close one that waits at any moment, which would be a fault of its own.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()
            await stop.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = unquote(request.raw_path)
        with self._lock:
            self.requests[request.method, path] += 1
            taken = {fault.action: fault for fault in self._faults if fault.takes(request)}
        body = await request.read()
        if "refuse" in taken:
            return _refusal(taken["refuse"], path)
        ignored = taken["ignore"].headers if "ignore" in taken else ()
        dropped = {name.lower() for name in (*_HOP_BY_HOP, *ignored)}
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in dropped]
        async with self._session.request(
            request.method,
            URL(self._upstream + request.raw_path, encoded=True),
            headers=headers,
            data=body or None,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            allow_redirects=False,
        ) as answer:
            data = await answer.read()
        if "swallow" in taken:
            return _hung_up(request, web.StreamResponse())
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        response.headers.extend(
            (name, value) for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP
        )
        await response.prepare(request)
        if request.method != "HEAD":
            await response.write(data[: len(data) // 2] if "cut" in taken else data)
        if "cut" in taken:
            return _hung_up(request, response)
        await response.write_eof()
        return response


def _refusal(fault: Fault, path: str) -> web.Response:
    message = _MESSAGES.get(fault.code, fault.code)
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{fault.code}</Code><Message>{message}</Message>'
        f"<Resource>{escape(path)}</Resource><RequestId>fault</RequestId></Error>"
    )
    return web.Response(status=fault.status, body=text.encode(), content_type="application/xml")


def _hung_up(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """End the connection once what was written is on its way; the rest of the response goes nowhere."""
    if request.transport is not None:
        request.transport.close()
    return response


@contextmanager
def proxy_before(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy for the length of a block."""
    proxy, ready, loop = FaultProxy(upstream), threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(proxy.serve(ready, stop)), name="fault proxy")
    thread.start()
    try:
        assert ready.wait(30), "the proxy did not start"
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
