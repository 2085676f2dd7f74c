"""Secrets in addresses: they are refused or cut out, and stand in no file, no record and no line of output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from jobs import embed
from pipeline.backbones import load_backbone, weights
from pipeline.errors import ImageReject, RejectCode
from pipeline.sources import web
from tests import samples
from tests.integration.processes import Surroundings
from tests.servers import running

pytestmark = pytest.mark.faults

SECRET = "geheim5f0b"
SIGNED = f"X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}"
#: What a store says of a request that it denies: S3 quotes it.
DENIED = (
    "<?xml version='1.0'?><Error><Code>SignatureDoesNotMatch</Code><Message>Denied: "
    f"https://user:{SECRET}@bucket.example/e.jpg?X-Amz-Signature={SECRET}</Message></Error>"
)


class Handler(BaseHTTPRequestHandler):
    """A store that denies everything; under /redirect a web server that leads to the cloud's metadata service."""

    def do_GET(self) -> None:
        if self.path.startswith("/redirect"):
            self.answer(302, b"", Location=f"http://169.254.169.254/latest/?{SIGNED}")
        elif self.path.startswith("/weights"):
            self.answer(404, b"")
        else:
            self.answer(403, DENIED.encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def content(path: Path) -> str:
    """Return all that a file holds: its name, its bytes, and the values and metadata of a Parquet file."""
    text = f"{path} {path.read_bytes().decode('latin-1')}"
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        text += f" {table.to_pylist()} {table.schema} {table.schema.metadata}"
    return text


def check_no_secret(folder: Path, *texts: str) -> None:
    """Look for the secret in texts, and in every file below a folder."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert [str(path) for path in found if SECRET in content(path)] == []
    assert [text for text in texts if SECRET in text] == []


def test_content__would_find_one(tmp_path: Path) -> None:
    for number, table in enumerate(
        (pa.table({"a": [f"x{SECRET}"]}), pa.table({"a": [1]}).replace_schema_metadata({"vep": SECRET}))
    ):
        pq.write_table(table, tmp_path / f"{number}.parquet", compression="zstd")
        with pytest.raises(AssertionError):
            check_no_secret(tmp_path)
        (tmp_path / f"{number}.parquet").unlink()


def test_embed__secrets_in_a_manifest_end_nowhere(server: str, surroundings: Surroundings, tmp_path: Path) -> None:
    source, table = tmp_path / "list" / "list.csv", tmp_path / "table"
    good = [str(samples.write(tmp_path / "images" / f"{i}.jpg", samples.jpeg(i))) for i in range(2)]
    refused = [
        f"https://user:{SECRET}@photos.example/a.jpg",
        f"https://photos.example/b.jpg?{SIGNED}",
        f"s3://AKIAEXAMPLE:{SECRET}@bucket/c.jpg",
        f"s3://bucket/d.jpg?{SIGNED}",
        f"{server}/redirect/f.jpg",  # of this network, as what it would lead to is
        f"data:image/png;base64,{SECRET}",
    ]
    entries = [*good, *refused, "s3://bucket/e.jpg"]
    source.parent.mkdir()
    told = [f"see https://user:{SECRET}@host/x?{SIGNED}"] * len(entries)
    pc.write_csv(pa.table({"uri": entries, "label": told, "note": told, "etag": told}), source)
    surroundings.variables.update(
        AWS_ACCESS_KEY_ID="AKIAEXAMPLE", AWS_SECRET_ACCESS_KEY=SECRET, AWS_SESSION_TOKEN=SECRET
    )
    options = ("--source", source, "--table", table, "--backbone", "pixels", "--allow-http", "--unit-size", 8)
    stored = json.dumps({"endpoint_url": server})
    code, out, err = surroundings.run(
        "embed", *options, "--storage-options", stored, "--max-reject-fraction", 1, "--verbose", "--json"
    )
    record = json.loads(out)
    assert (code, record["status"]) == (1, "pending"), err
    assert record["ledger"] == {"planned": 9, "embedded": 2, "rejected": 6, "pending": 1, "reused": 0}
    assert record["rejects_by_code"] == {"refused": 6}
    assert "PermissionError" in err  # why the one is pending
    check_no_secret(table, out, err)
    (plan,) = (table / "plans").iterdir()
    opened_with = json.loads(pq.read_metadata(plan).metadata[b"vep"])["opened_with"]
    assert opened_with["storage_options"] == {"endpoint_url": server}
    rejects = pq.read_table(table / "rejects").to_pylist()
    assert {row["uri"].partition("#")[0] for row in rejects} == {
        "https://photos.example/a.jpg",
        "https://photos.example/b.jpg",
        "s3://bucket/c.jpg",
        "s3://bucket/d.jpg",
        f"{server}/redirect/f.jpg",
        "data:…",
    }
    check_no_secret(surroundings.folder, str(surroundings.stray_files()))


def test_fetch__a_redirect_to_the_clouds_metadata_service(server: str) -> None:
    with pytest.raises(ImageReject, match="is at 169.254.169.254, which is no public address") as caught:
        web.fetch(f"{server}/redirect/a.jpg", 10, is_allowed=lambda address: address.is_loopback)
    assert caught.value.code is RejectCode.REFUSED
    assert SECRET not in str(caught.value)


USER, QUERY = f"user:{SECRET}@", f"?{SIGNED}"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--source", f"s3://{USER}bucket/photos"),
        ("--source", f"s3://bucket/shard-{{000..009}}.tar{QUERY}"),
        ("--table", f"s3://bucket/table{QUERY}"),
        ("--table", f"s3://{USER}bucket/table"),
        ("--root", f"s3://{USER}bucket"),
        ("--reuse", f"s3://{USER}bucket/table"),
        ("--weights", f"https://{USER}host/w.pt"),
        ("--weights", f"https://host/w.pt{QUERY}"),
        ("--weights", f"s3://{USER}bucket/w.pt"),
        ("--storage-options", json.dumps({"key": "AKIA", "secret": SECRET})),
        ("--storage-options", json.dumps({"endpoint_url": f"http://{USER}host"})),
        ("--storage-options", json.dumps({"client_kwargs": {"headers": {"Authorization": SECRET}}})),
        ("--storage-options", f'{{"secret": "{SECRET}"'),
        ("--table-storage-options", json.dumps({"config_kwargs": {"proxies": [f"http://{USER}proxy"]}})),
    ],
)
def test_embed__secrets_in_options_are_refused(
    option: str, value: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    source = samples.write(tmp_path / "list.csv", b"uri\na.jpg\n")
    backbone = "microsoftvision-resnet50" if option == "--weights" else "pixels"
    given: dict[str, Any] = {"--source": source, "--table": tmp_path / "table", "--backbone": backbone, option: value}
    arguments = [str(part) for pair in given.items() for part in pair]
    assert embed.main([*arguments, "--json"]) == 2
    out, err = capfd.readouterr()
    assert json.loads(out)["status"] == "failed"
    check_no_secret(tmp_path, out, err, caplog.text)
    assert not (tmp_path / "table").exists()


def test_embed__weights_that_are_not_there(
    server: str, image_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    arguments = ("--source", image_folder, "--table", tmp_path / "table", "--cache-dir", tmp_path / "cache")
    uri = f"{server}/weights.pt?id={SECRET}"  # a query that need not be a secret, but is shown nowhere all the same
    assert embed.main([*map(str, arguments), "--weights", uri, "--verbose"]) == 2
    out, err = capfd.readouterr()
    assert f"Expected weights at {server}/weights.pt, but" in err
    check_no_secret(tmp_path, out, err, caplog.text)


def test_load_backbone__the_contract_has_no_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = load_backbone("microsoftvision-resnet50", "random:0").network.state_dict()
    monkeypatch.setattr(weights, "load", lambda uri, cache_dir: state)
    contract = load_backbone("microsoftvision-resnet50", f"https://host/w.pt?id={SECRET}").contract
    assert contract.weights == "https://host/w.pt"
    assert SECRET not in json.dumps(contract.to_json())
