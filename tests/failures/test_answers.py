"""What a web server answers, to the reader of a manifest and to the download of weights."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.backbones.fetch import fetch
from pipeline.errors import ImageReject, WeightsError, WeightsUnavailable
from pipeline.failures import FAILURES, Seam, Verdict, find, of_status
from pipeline.sources import web
from pipeline.storage.retry import ATTEMPTS
from tests.failures.examples import CASES, Answer, Case, of
from tests.servers import running


class Handler(BaseHTTPRequestHandler):
    """Answers a request for /404 with 404."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(int(self.path.strip("/").removesuffix(".pt")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A web server on the loopback interface."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    with running(Server()) as server:
        yield server


#: 1xx is no answer yet: a client waits on.
STATUSES = sorted({case.error.status for case in CASES if isinstance(case.error, Answer) and case.error.status >= 200})


@pytest.mark.parametrize("status", STATUSES)
def test_fetch__an_answer_comes_to_its_verdict(status: int, server: Server) -> None:
    expected = of_status(status)
    assert expected is not None
    with pytest.raises((ImageReject, OSError), match=f"answers {status}: {expected.what}") as caught:
        web.fetch(server.url(str(status)), 9, is_allowed=lambda _: True)
    assert getattr(caught.value, "code", None) is expected.code
    assert find(caught.value, Seam.WEB).verdict is expected.verdict
    assert len(server.asked) == (ATTEMPTS if expected.verdict is Verdict.RETRY else 1)


@pytest.mark.parametrize(("known_host", "verdict"), [("also.invalid", Verdict.RETRY), ("localhost", Verdict.REJECT)])
def test_addresses__a_host_that_is_not_found(known_host: str, verdict: Verdict) -> None:
    (failure,) = [failure for failure in FAILURES if failure.what.startswith("there is no such host")]
    with pytest.raises((ImageReject, OSError)) as caught:
        web.addresses("no such host", 80, known_host)
    assert find(caught.value, Seam.WEB).verdict is verdict
    assert getattr(caught.value, "code", failure.code) is failure.code


@of(Seam.WEIGHTS)
def test_weights__there_are_none(case: Case, server: Server, tmp_path: Path) -> None:
    status = case.error.status if isinstance(case.error, Answer) else 404
    with pytest.raises(WeightsError, match="after 1 attempt"):
        fetch(server.url(f"{status}.pt"), str(tmp_path), (0.0, 0.0))


@pytest.mark.parametrize(("status", "attempts"), [(401, 1), (403, 1), (429, 3), (500, 3), (503, 3)])
def test_weights__what_may_pass_is_not_the_users_mistake(
    status: int, attempts: int, server: Server, tmp_path: Path
) -> None:
    with pytest.raises(WeightsUnavailable, match=rf"after {attempts} attempt.*\b{status}\b"):
        fetch(server.url(f"{status}.pt"), str(tmp_path), (0.0, 0.0))
