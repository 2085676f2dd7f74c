"""Trying again: bounded, with exponential back-off and full jitter, longer where the store asks to slow down."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial, wraps
from itertools import chain, repeat
from typing import Any, TypeVar, cast

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from pipeline.failures import Verdict, find

logger = logging.getLogger(__name__)

#: Attempts in all. The clients of object stores try each request a few times on their own, below this.
ATTEMPTS = 4
#: Longest first wait in seconds; each further one may be twice as long. Full jitter: a wait is anywhere from 0 to that.
_FIRST_WAIT_S, _FIRST_WAIT_WHEN_THROTTLED_S, _LONGEST_WAIT_S = 0.25, 2.0, 30.0

Function = TypeVar("Function", bound=Callable[..., Any])


def may_pass(error: BaseException) -> bool:
    """Return whether the same call may succeed a little later."""
    return find(error).verdict is Verdict.RETRY


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    first_s = _FIRST_WAIT_WHEN_THROTTLED_S if error is not None and find(error).slow_down else _FIRST_WAIT_S
    return float(wait_random_exponential(multiplier=first_s, max=_LONGEST_WAIT_S)(state))


def _raiser(error: Exception) -> Callable[[], Any]:
    def attempt() -> Any:
        raise error

    return attempt


def retried(function: Function) -> Function:
    """Make a function try again while its errors are such as may pass."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)  # as a rule that is all; a policy costs more than to read a small file
        except Exception as error:
            if not may_pass(error):
                raise
            again: Callable[[], Any] = partial(function, *args, **kwargs)
            attempts = chain([_raiser(error)], repeat(again))
        policy = Retrying(
            stop=stop_after_attempt(ATTEMPTS), wait=_wait, retry=retry_if_exception(may_pass), reraise=True
        )
        return policy(lambda: next(attempts)())

    return cast(Function, call)
