"""Read many small files at once: a window of threads, in order.

Threads, not one asynchronous loop: they serve a local disk, a network mount and every object store alike, each with
retries of its own, and the decoder works on one image while others are on their way. `make bench-plan` measures both
ways; docs/architecture.md has the figures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.sources.base import Fetched

#: Files on their way at once, in one read task.
CONCURRENT_READS = 32


def fetch_in_order(
    uris: Sequence[str], fetch: Callable[[str], Fetched], concurrent: int = CONCURRENT_READS
) -> Iterator[Fetched]:
    """Yield what ``fetch`` gives for each URI, in order, with a bounded number of them on the way.

    Args:
        uris: What to fetch.
        fetch: Reads one file; its errors are raised here, at that file's turn.
        concurrent: How many at once; 1 reads one by one, without threads.
    """
    if concurrent <= 1:
        yield from map(fetch, uris)
        return
    waiting: deque[Future[Fetched]] = deque()
    rest = iter(uris)
    with ThreadPoolExecutor(concurrent, thread_name_prefix="read") as pool:
        try:
            for uri in rest:
                waiting.append(pool.submit(fetch, uri))
                if len(waiting) >= concurrent:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
