"""What `make bench-plan` runs: listing, planning, and reading small files, local and over the S3 protocol.

The S3 server is moto's, in a process of its own on the loopback interface; it shares the machine's cores, so the
figures say how requests overlap, not how fast a real store is.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
from aiohttp import web

from pipeline.refs import REF_SCHEMA
from pipeline.sources import FolderSource
from pipeline.storage import store_for
from pipeline.table import Listing, open_table, plan_source
from tests import s3

_CONCURRENT = (1, 8, 64)
_BATCH = 16_384
#: From asking for an object to its first byte; S3 takes some 20 to 100 ms.
_LATENCY_S = 0.02


def synthetic_refs(num_images: int) -> Iterator[pa.Table]:
    """Yield a listing as a bucket of product photographs would give it, 16,384 images at a time."""
    for start in range(0, num_images, _BATCH):
        numbers = range(start, min(num_images, start + _BATCH))
        columns = [
            pa.array([f"s3://bucket/photos/train/class-{i % 100:02d}/{i:09d}.jpg" for i in numbers]),
            pa.array([f"{i:032x}" for i in numbers]),
            pa.repeat(pa.scalar(1, pa.int32()), len(numbers)),
            pa.array([f"class-{i % 100:02d}" for i in numbers]),
            pa.array(["train"] * len(numbers)),
        ]
        yield pa.table(columns, schema=REF_SCHEMA)


def plan_once(num_images: int) -> None:
    """Plan a synthetic listing twice, the second time with everything known, and print one line."""
    refs = Listing("folder s3://bucket/photos", False, lambda _: synthetic_refs(num_images), pa.schema([]), "p", 1024)
    with tempfile.TemporaryDirectory() as folder:
        table = open_table(folder)
        first, second = plan_source(table, refs), plan_source(table, refs)
        assert (first.new, second.new, len(first.units)) == (num_images, 0, -(-num_images // 1024))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    start = time.perf_counter()
    for _ in synthetic_refs(num_images):
        pass
    own_s = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    times = f"{first.seconds:.1f} | {second.seconds:.1f} | {own_s:.1f}"
    print(f"| {num_images:,} | {times} | {peak:.0f} | {size / 1e6:.0f} |", flush=True)


def bench_planning(sizes: list[int]) -> None:
    """Plan listings of several sizes, each in a process of its own, for its own peak of memory."""
    print("\n## Planning a synthetic listing\n")
    print("| images | plan (s) | plan again (s) | of which the synthesis (s) | peak memory (MB) | plans (MB) |")
    print("|---|---|---|---|---|---|", flush=True)
    for size in sizes:
        subprocess.run([sys.executable, "-m", "benchmarks.plan", "--plan-once", str(size)], check=True)


def bench_listing(num_files: int) -> None:
    """List a local tree of small files."""
    with tempfile.TemporaryDirectory() as folder:
        for i in range(num_files):
            path = Path(folder, f"class-{i % 100:02d}", f"{i:07d}.jpg")
            if i < 100:
                path.parent.mkdir()
            path.touch()
        source = FolderSource(folder)
        start = time.perf_counter()
        found = sum(len(refs) for refs in source.refs(1024))
        took = time.perf_counter() - start
        assert found == num_files
        print(f"\n## Listing\n\nlocal: {found:,} files in {took:.1f} s, {found / took:,.0f} files/s", flush=True)


def bench_s3(num_files: int, num_bytes: int) -> None:
    """List and read small objects."""
    data = os.urandom(num_bytes)
    with s3.serve() as server:
        bucket = server.make_bucket("bench-plan")
        store = store_for(bucket, server.options)
        uris = [f"{bucket}/photos/class-{i % 20:02d}/{i:05d}.jpg" for i in range(num_files)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda uri: store.replace(uri, data), uris))
        start = time.perf_counter()
        found = sum(len(refs) for refs in FolderSource(f"{bucket}/photos", store).refs(1024))
        took = time.perf_counter() - start
        assert found == num_files
        print(f"S3 (moto): {found:,} objects in {took:.1f} s, {found / took:,.0f} objects/s", flush=True)
        print(f"\n## Reading files of {num_bytes / 1000:.0f} kB (images/s)\n")
        print("| concurrent reads | " + " | ".join(map(str, _CONCURRENT)) + " |")
        print("|---|" + "---|" * len(_CONCURRENT))
        with tempfile.TemporaryDirectory() as folder:
            for i in range(num_files):
                Path(folder, f"{i:05d}.jpg").write_bytes(data)
            print(_row("local, threads", [_read(FolderSource(folder, concurrent_reads=n)) for n in _CONCURRENT]))
        sources = [FolderSource(f"{bucket}/photos", store, concurrent_reads=n) for n in _CONCURRENT]
        print(_row("S3 (moto), threads", [_read(source) for source in sources]), flush=True)
        print(_row("S3 (moto), one asyncio loop", [_read_async(server.options, uris, n) for n in _CONCURRENT]))
    few = uris[: max(64, num_files // 8)]
    with _slow_server(data) as endpoint:
        options = {"endpoint_url": endpoint}
        sources = [FolderSource(bucket, store_for(bucket, options), concurrent_reads=n) for n in _CONCURRENT]
        name = f"GET answered after {_LATENCY_S * 1000:.0f} ms"
        print(_row(f"{name}, threads", [_read(source, few) for source in sources]))
        print(_row(f"{name}, one asyncio loop", [_read_async(options, few, n) for n in _CONCURRENT]), flush=True)


@contextmanager
def _slow_server(data: bytes) -> Iterator[str]:
    """Run a server that answers every GET with the same bytes, as late as a store across a network does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=_answer_slowly, args=(data, port), daemon=True)
    process.start()
    try:
        s3.wait_for(f"http://127.0.0.1:{port}/x", process.is_alive)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.join()


def _answer_slowly(data: bytes, port: int) -> None:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(_LATENCY_S)
        return web.Response(status=206, body=data, headers={"ETag": '"0"', "Content-Range": f"bytes 0-1/{len(data)}"})

    app = web.Application()
    app.router.add_get("/{key:.*}", answer)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


def _row(name: str, rates: list[float]) -> str:
    return f"| {name} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |"


def _read(source: FolderSource, uris: list[str] | None = None) -> float:
    """Return images/s of reading what a source lists, or some URIs of it."""
    refs = pa.concat_tables(source.refs(1024)) if uris is None else pa.table({"uri": uris})
    start = time.perf_counter()
    count = sum(len(image.data) > 0 for image in source.read(refs, 10**7).images() if isinstance(image.data, bytes))
    assert count == len(refs)
    return count / (time.perf_counter() - start)


def _read_async(options: dict[str, Any], uris: list[str], concurrent: int) -> float:
    """Read as s3fs does on its own, in its event loop, with so many requests at once."""
    fs = fsspec.filesystem("s3", **options, config_kwargs={"max_pool_connections": 96})
    start = time.perf_counter()
    found = fs.cat([uri[5:] for uri in uris], batch_size=concurrent)
    assert len(found) == len(uris)
    return len(uris) / (time.perf_counter() - start)


def main() -> None:
    """Run what the options say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100000,1000000", help="sizes of the synthetic listings, by commas")
    parser.add_argument("--files", type=int, default=100_000, help="local files to list")
    parser.add_argument("--objects", type=int, default=2000, help="objects to list and read")
    parser.add_argument("--bytes", type=int, default=30_000, help="bytes of an object")
    parser.add_argument("--plan-once", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan_once:
        plan_once(options.plan_once)
        return
    os.environ.update(s3.ENVIRONMENT)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    bench_planning([int(size) for size in options.sizes.split(",")])
    bench_listing(options.files)
    bench_s3(options.objects, options.bytes)


if __name__ == "__main__":
    main()
