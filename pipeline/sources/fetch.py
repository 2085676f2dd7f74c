"""Read many small files: one by one while they come at once, then through a window of threads, in order.

Threads, not one asynchronous loop: they serve a network mount and every object store alike, each with retries of its
own, and the decoder works on one image while others are on their way. But where there is nothing to wait for, on a
local disk, they only keep the decoder from the interpreter. `make bench-plan` measures the ways;
docs/performance.md has the figures.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

from pipeline.sources.base import Fetched

#: Files on their way at once, in one read task.
CONCURRENT_READS = 32
#: Threads are started when two files one after the other took the one time each, or half of the last few took the
#: other (seconds): a disk's cache gives a photograph in a tenth of a millisecond, a store in ten. One that takes long
#: means nothing: beside an engine on all cores, a process waits so long for a processor several times a unit.
_TWO_S, _HALF_S, _LAST = 0.008, 0.001, 9


def fetch_in_order(
    uris: Sequence[str],
    fetch: Callable[[str], Fetched],
    concurrent: int = CONCURRENT_READS,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Fetched]:
    """Yield what ``fetch`` gives for each URI, in order, with a bounded number of them on the way.

    Args:
        uris: What to fetch.
        fetch: Reads one file; its errors are raised here, at that file's turn.
        concurrent: How many at once; 1 reads one by one, without threads.
        clock: Tells the time in seconds.
    """
    took: deque[float] = deque(maxlen=_LAST)
    rest = iter(uris)
    for uri in rest:
        if concurrent > 1 and _have_to_wait(took):
            yield from _by_threads(chain([uri], rest), fetch, concurrent)
            return
        began = clock()
        fetched = fetch(uri)
        took.append(clock() - began)
        yield fetched


def _have_to_wait(took: deque[float]) -> bool:
    two = len(took) > 1 and min(took[-1], took[-2]) > _TWO_S
    return two or (len(took) == _LAST and sum(seconds > _HALF_S for seconds in took) > _LAST // 2)


def _by_threads(uris: Iterator[str], fetch: Callable[[str], Fetched], concurrent: int) -> Iterator[Fetched]:
    waiting: deque[Future[Fetched]] = deque()
    with ThreadPoolExecutor(concurrent, thread_name_prefix="read") as pool:
        try:
            for uri in uris:
                waiting.append(pool.submit(fetch, uri))
                if len(waiting) >= concurrent:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
