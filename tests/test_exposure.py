"""Open clusters are refused: against a server that speaks the question's protocol, and answers as Ray's does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from pipeline import exposure
from pipeline.errors import ConfigError

OPEN, TOKEN, BROKEN = "open", "token", "broken"


class ControlStore(grpc.GenericRpcHandler):
    """Answers the one question that is asked, as a cluster of a kind does."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method != "/ray.rpc.NodeInfoGcsService/CheckAlive":
            return None

        def answer(request: bytes, context: Any) -> bytes:
            has_token = any(key == "authorization" for key, _ in context.invocation_metadata())
            if self.kind == TOKEN and not has_token:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            if self.kind == BROKEN:
                context.abort(grpc.StatusCode.INTERNAL, "out of order")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def control_store(kind: str) -> Iterator[str]:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[ControlStore(kind)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (exposure.VARIABLE, "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    # Ray reads RAY_AUTH_MODE once in a process's life, and another test may have been first.
    monkeypatch.setattr(exposure, "is_token_auth_enabled", lambda: False)


@pytest.mark.parametrize(("kind", "expected"), [(OPEN, False), (TOKEN, True), (BROKEN, None)])
def test_requires_token__asks_the_cluster(kind: str, expected: bool | None) -> None:
    with control_store(kind) as address:
        assert exposure.requires_token(address) is expected


def test_requires_token__goes_by_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with control_store(TOKEN) as address:
        assert exposure.requires_token(address) is True


def test_require_private__refuses_an_open_cluster_and_says_what_to_do() -> None:
    advice = (
        r"listens on 10\.0\.0\.1, 10\.0\.0\.2, 10\.0\.0\.3, … and requires no token.*RAY_AUTH_MODE=token.*VEP_ALLOW"
    )
    with control_store(OPEN) as address, pytest.raises(ConfigError, match=advice):
        exposure.require_private(address, ["127.0.0.1", *(f"10.0.0.{i}" for i in range(1, 5))])


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.2", "::", "fd00::2", "head.internal"])
def test_require_private__only_loopback_is_private(host: str) -> None:
    with control_store(OPEN) as address:
        exposure.require_private(address, ["127.0.0.1", "::1", "localhost"])
        with pytest.raises(ConfigError, match="requires no token"):
            exposure.require_private(address, ["127.0.0.1", host])


def test_require_private__takes_a_cluster_that_requires_tokens() -> None:
    with control_store(TOKEN) as address:
        exposure.require_private(address, ["10.0.0.1"])


@pytest.mark.parametrize(("value", "allowed"), [("1", True), ("0", False), ("", False)])
def test_require_private__an_open_cluster_can_be_allowed(
    value: str, allowed: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(exposure.VARIABLE, value)
    with control_store(OPEN) as address:
        if not allowed:
            with pytest.raises(ConfigError):
                exposure.require_private(address, ["10.0.0.1"])
            return
        exposure.require_private(address, ["10.0.0.1"])
    assert "who can reach it can run code in it" in caplog.text


def test_require_private__a_cluster_that_does_not_answer_is_taken_where_certificates_guard_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with control_store(BROKEN) as address:
        with pytest.raises(ConfigError, match="requires no token"):
            exposure.require_private(address, ["10.0.0.1"])
        monkeypatch.setenv("RAY_USE_TLS", "1")
        exposure.require_private(address, ["10.0.0.1"])
        monkeypatch.delenv("RAY_USE_TLS")
        monkeypatch.setattr(exposure, "is_token_auth_enabled", lambda: True)
        exposure.require_private(address, ["10.0.0.1"])
