"""A real S3 protocol server on the loopback interface: moto's, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: What every process of the tests has in its environment; the server takes any credentials.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Args:
        endpoint: Its address.
    """

    endpoint: str

    @property
    def options(self) -> dict[str, Any]:
        """Storage options that lead to it."""
        return {"endpoint_url": self.endpoint}

    def client(self) -> Any:
        import boto3

        return boto3.client("s3", endpoint_url=self.endpoint)

    def make_bucket(self, name: str) -> str:
        """Create a bucket and return its URI."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def upload(self, folder: Path, uri: str) -> None:
        """Copy a local folder below a prefix."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        client = self.client()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.put_object(Bucket=bucket, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())


@contextmanager
def serve() -> Iterator[S3Server]:
    """Run a server for the length of a block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
    try:
        wait_for(f"http://127.0.0.1:{port}/moto-api/", lambda: process.poll() is None)
        yield S3Server(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def wait_for(url: str, is_alive: Callable[[], bool]) -> None:
    """Wait until a server that was started answers."""
    end = time.monotonic() + 60
    while True:
        assert is_alive(), "the server ended"
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.1)
