"""No secret of a manifest gets into a plan, and nothing harmless is taken for one."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources.manifest import ManifestSource
from tests.sources.manifests import listed, verdicts, write

SECRETS = ("geheim", "AKIA", "Signature=", "user:")


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("s3://bucket/a.jpg?X-Amz-Credential=AKIA&X-Amz-Signature=geheim", "s3://bucket/a.jpg"),
        ("https://bucket.example/a.jpg?X-Amz-Signature=geheim", "https://bucket.example/a.jpg"),
        ("https://example.com/a.jpg?geheim", "https://example.com/a.jpg"),
        ("https://example.com/a.jpg#geheim", "https://example.com/a.jpg"),
        ("https://user:geheim@example.com/a.jpg", "https://example.com/a.jpg"),
        ("  https://user:geheim@example.com/a.jpg", "https://example.com/a.jpg"),
        ("s3://AKIA:geheim@bucket/a.jpg", "s3://bucket/a.jpg"),
        ("ftp://user:geheim@example.com/a.jpg", "ftp://example.com/a.jpg"),
        ("see https://user:geheim@example.com/a.jpg", "see https://example.com/a.jpg"),
    ],
)
@pytest.mark.parametrize("allow_http", [False, True])
def test_refs__no_secret_gets_into_a_plan(tmp_path: Path, entry: str, shown: str, allow_http: bool) -> None:
    row: dict[str, Any] = {"uri": entry}
    if ":geheim" in entry or "Signature" in entry:  # what is told from a harmless address in other columns too
        row |= {"label": entry, "split": entry, "version": entry, "other": entry, "deep": [{"x": [entry, None]}]}
    clean = {"uri": "s3://bucket/a.jpg", "version": "1"}
    path = write(tmp_path, "list.jsonl", "\n".join(map(json.dumps, [row, row, clean])))
    source = ManifestSource(path, allow_http=allow_http)
    text = str(listed(source).to_pylist())
    assert [secret for secret in SECRETS if secret in text] == []
    assert verdicts(source) == [
        (f"{shown}#row-1", "refused"),
        (f"{shown}#row-2", "refused"),
        ("s3://bucket/a.jpg", "1"),
    ]


def test_refs__no_secret_in_columns_of_any_type(tmp_path: Path) -> None:
    secret = "s3://user:geheim@b/k"
    content = {
        "uri": pa.array(["a.jpg"]),
        "pairs": pa.array([[("x", secret)]], pa.map_(pa.string(), pa.string())),
        "struct": pa.array([{"at": datetime.datetime(2024, 1, 1), "of": [secret]}]),
        "coded": pa.array([secret]).dictionary_encode(),
        "fixed": pa.array([[secret, None]], pa.list_(pa.string(), 2)),
    }
    pq.write_table(pa.table(content), tmp_path / "list.parquet")
    (row,) = listed(ManifestSource(str(tmp_path / "list.parquet"))).to_pylist()
    shown = "s3://b/k"
    assert list(row.values())[5:] == [
        [("x", shown)],
        {"at": datetime.datetime(2024, 1, 1), "of": [shown]},
        shown,
        [shown, None],
    ]


def test_refs__extra_columns_keep_harmless_uris(tmp_path: Path) -> None:
    harmless = "https://example.com/page?id=5#top"
    path = write(tmp_path, "list.csv", f"uri,page\na.jpg,{harmless}\n")
    assert listed(ManifestSource(path))["page"].to_pylist() == [harmless]
