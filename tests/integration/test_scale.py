"""Planning at scale: a listing streams, whatever its size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.processes import ROOT

NUM_IMAGES = 1_000_000

PLAN = """
import json, re, sys, time
from pipeline.sources.manifest import ManifestSource
from pipeline.table import Listing, open_table, plan_source

source = ManifestSource(sys.argv[1])
listing = Listing(source.identity, False, source.refs, source.columns(), "promise", 1024)
for _ in range(2):
    started = time.perf_counter()
    planned = plan_source(open_table(sys.argv[2]), listing)
    # Not getrusage's: that begins with the peak of the process which started this one.
    peak_mb = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)) / 1e3
    seconds = time.perf_counter() - started
    print(json.dumps({"new": planned.new, "units": len(planned.units), "seconds": seconds, "peak_mb": peak_mb}))
"""


@pytest.mark.slow
def test_plan_source__a_manifest_of_a_million_rows(tmp_path: Path) -> None:
    with pq.ParquetWriter(tmp_path / "m.parquet", pa.schema({"uri": pa.string(), "price": pa.float32()})) as writer:
        for start in range(0, NUM_IMAGES, 100_000):
            numbers = range(start, start + 100_000)
            uris = [f"s3://bucket/products/{i % 1000:03d}/{i:07d}.jpg" for i in numbers]
            writer.write_table(pa.table({"uri": uris, "price": pa.array(numbers, pa.float32())}))
    process = subprocess.run(
        [sys.executable, "-c", PLAN, str(tmp_path / "m.parquet"), str(tmp_path / "table")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    first, again = (json.loads(line) for line in process.stdout.splitlines())
    assert (first["new"], again["new"], first["units"]) == (NUM_IMAGES, 0, 981)  # the first four are smaller
    assert max(first["peak_mb"], again["peak_mb"]) < 1000
    assert max(first["seconds"], again["seconds"]) < 120  # 60 s on a quiet machine; this one may be busy
