"""What the fault tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fault_proxy import FaultProxy, proxy_before
from tests.s3 import S3Server


@pytest.fixture(scope="session")
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A way to the S3 server on which tests put faults; each lifts its own."""
    with proxy_before(s3_server.endpoint) as running:
        yield running
