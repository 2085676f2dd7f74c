"""The table of failures: no row hides another, nothing that may pass is permanent, every code is documented."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest

from jobs import cli
from pipeline.errors import ImageReject, PipelineError, RejectCode
from pipeline.failures import FAILURES, Seam, Verdict, find, of_status
from pipeline.options import Options
from pipeline.storage import retried
from pipeline.storage.retry import ATTEMPTS
from tests.failures.examples import CASES, Answer, Case, foreign, of

DOCUMENT = Path(__file__).parents[2] / "docs" / "table-format.md"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_find__every_mark_leads_to_its_own_row(case: Case) -> None:
    if isinstance(case.error, ImageReject):
        assert find(case.error).code is case.failure.code
    else:
        assert find(case.error, case.failure.seam) is case.failure


def test_find__every_exception_and_every_reject_code_has_a_row() -> None:
    assert {failure.code for failure in FAILURES} - {None} == set(RejectCode)
    assert find(KeyboardInterrupt()).verdict is Verdict.PENDING
    assert all(find(ImageReject("read", code, "")).verdict is Verdict.REJECT for code in RejectCode)
    last = FAILURES[-1]
    assert all(find(kind("trouble"), Seam.JOB) is not last for kind in below(PipelineError) if kind is not ImageReject)


def below(kind: type) -> list[type]:
    return [each for sub in kind.__subclasses__() for each in (sub, *below(sub))]


def numbered(name: str) -> OSError:
    return OSError(getattr(errno, name), "trouble")


_ERRNOS = (
    *("EACCES", "EAGAIN", "EBUSY", "ECONNREFUSED", "ECONNRESET", "EDQUOT", "EHOSTUNREACH", "EINTR", "EIO", "EMFILE"),
    *("ENETUNREACH", "ENFILE", "ENOMEM", "ENOSPC", "ENOTCONN", "EPERM", "EPIPE", "EROFS", "ESTALE", "ETIMEDOUT"),
)
#: What must never settle anything nor end a run, wherever it is noticed.
TRANSIENT = [
    *map(numbered, _ERRNOS),
    *(TimeoutError(), MemoryError(), ConnectionResetError(), PermissionError(), OSError("no number"), EOFError()),
    *map(Answer, (401, 403, 407, 408, 423, 425, 429, *range(500, 600))),
    *map(foreign, ("ray.exceptions.NodeDiedError", "ray.exceptions.OutOfMemoryError", "aiohttp.ServerTimeoutError")),
    *map(foreign, ("botocore.exceptions.EndpointConnectionError", "botocore.exceptions.NoCredentialsError")),
]


@pytest.mark.parametrize("seam", list(Seam))
@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_find__what_may_pass_is_never_permanent(error: Exception, seam: Seam) -> None:
    verdict = find(error, seam).verdict
    if seam is Seam.JOB and isinstance(error, PermissionError):  # before there is any work: no use in trying again
        assert verdict is Verdict.FATAL
    else:
        assert verdict in (Verdict.RETRY, Verdict.PENDING)


@pytest.mark.parametrize("error", [*map(numbered, ("ENOSPC", "EDQUOT", "EROFS", "EACCES")), Answer(401), Answer(403)])
def test_find__what_a_moments_wait_does_not_mend_is_not_tried_at_once(error: Exception) -> None:
    assert find(error).verdict is Verdict.PENDING


@pytest.mark.parametrize("error", [*map(numbered, ("EIO", "ESTALE", "EMFILE", "ETIMEDOUT")), Answer(500), Answer(503)])
def test_find__what_a_moments_wait_may_mend_is(error: Exception) -> None:
    assert find(error).verdict is Verdict.RETRY


def test_of_status__what_was_asked_for_is_no_failure() -> None:
    assert [status for status in range(100, 1000) if of_status(status) is None] == [200, 201, *range(203, 300)]


@of(Seam.ANYBODY)
def test_retried__tries_again_where_the_verdict_says_so(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, waits = [], []
    monkeypatch.setattr("time.sleep", waits.append)

    @retried
    def work() -> None:
        calls.append(1)
        raise case.error

    with pytest.raises(type(case.error)):
        work()
    assert len(calls) == (ATTEMPTS if case.failure.verdict is Verdict.RETRY else 1)
    assert max(waits, default=0) <= (30 if case.failure.slow_down else 2)


class NoOptions(Options):
    """A job for these tests."""


@of(Seam.JOB, Seam.ANYBODY, rejects=False)
def test_run_job__exits_with_the_verdicts_code(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    def work(*_: object) -> dict[str, Any]:
        raise case.error

    failure = find(case.error, Seam.JOB)
    if not isinstance(case.error, PipelineError | OSError):  # a fault of the program: Python shows where, and exits 1
        with pytest.raises(type(case.error)):
            cli.run_job("test", NoOptions, work, str, [])
        assert failure.verdict in (Verdict.RETRY, Verdict.PENDING)
        return
    code = cli.run_job("test", NoOptions, work, str, [])
    expected = {Verdict.REJECT: 3, Verdict.FATAL: 2, Verdict.RETRY: 1, Verdict.PENDING: 1, Verdict.BREACH: 4}
    assert code == expected[failure.verdict]
    shown = capsys.readouterr().err
    assert failure.advice in shown
    assert ("run the same command again" in shown) == (code == 1 and not isinstance(case.error, PipelineError))


def test_reject_codes__are_documented_and_no_others() -> None:
    text = DOCUMENT.read_text()
    lines = text[text.index("| code | stage | meaning |") :].split("\n\n")[0].splitlines()[2:]
    rows = [re.fullmatch(r"\| `(\w+)` \| ([a-z, ]+) \| (.+) \|", line) for line in lines]
    assert sorted(row[1] if row else "?" for row in rows) == sorted(code.value for code in RejectCode)
