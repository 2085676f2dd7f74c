"""Fetching from web servers: what is refused, what is missing, what may pass, and that nothing leaks."""

from __future__ import annotations

import datetime
import ssl
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.errors import ImageReject, RejectCode
from pipeline.sources import web
from tests.servers import running

#: What the server answers, by path: status, headers, body.
ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/image": (200, {}, b"image"),
    "/a%20b%C3%BC": (200, {}, b"quoted"),
    "/long": (200, {}, b"x" * 5_000_000),
    "/to-image": (302, {"Location": "image"}, b""),
    "/to-query": (307, {"Location": "/query?X-Amz-Signature=geheim"}, b""),
    "/query?X-Amz-Signature=geheim": (500, {}, b""),
    "/to-unicode": (301, {"Location": "/a b\u00fc".encode().decode("latin-1")}, b""),
    "/to-metadata": (302, {"Location": "http://169.254.169.254/latest/meta-data"}, b""),
    "/to-inside": (302, {"Location": "http://inside.example/image"}, b""),
    "/to-file": (302, {"Location": "file:///etc/passwd"}, b""),
    "/to-ftp": (302, {"Location": "ftp://127.0.0.1/x"}, b""),
    "/to-user": (302, {"Location": "http://user:geheim@127.0.0.1/image"}, b""),
    "/to-nonsense": (302, {"Location": "http://[x"}, b""),
    "/loop": (302, {"Location": "/loop"}, b""),
    "/no-location": (302, {}, b""),
    "/not-modified": (304, {}, b""),
    "/bad": (400, {}, b""),
    "/denied": (403, {}, b""),
    "/none": (404, {}, b""),
    "/gone": (410, {}, b""),
    "/broken": (500, {}, b""),
    "/cut": (200, {"Content-Length": "1000"}, b"x"),
    **{f"/step{n}": (302, {"Location": f"/step{n - 1}"}, b"") for n in range(1, 7)},
    "/step0": (200, {}, b"arrived"),
}


class Server(ThreadingHTTPServer):
    """A web server on the loopback interface that keeps the paths and hosts it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []
        self.busy = 1

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"]))
        if self.path == "/garbage":
            self.wfile.write(b"SSH-2.0-OpenSSH\r\n")
            return
        if self.path == "/drip":
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
            try:
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.02)
            except OSError:
                return
        status, headers, body = ANSWERS.get(self.path, (404, {}, b""))
        if self.path == "/busy-once":
            status, headers, body = (503, {}, b"") if self.server.busy else (200, {}, b"at last")
            self.server.busy = 0
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server()) as server:
        yield server


def is_loopback(address: web.Address) -> bool:
    return address.is_loopback


def fetch(url: str, max_bytes: int = 10**6) -> bytes:
    return web.fetch(url, max_bytes, is_allowed=is_loopback)


def refusal(url: str, **options: object) -> ImageReject:
    with pytest.raises(ImageReject) as caught:
        web.fetch(url, 100, **options)  # type: ignore[arg-type]
    assert caught.value.stage == "read"
    return caught.value


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_is_public__the_internet(address: str) -> None:
    assert web.is_public(ip_address(address))


# fmt: off
NOT_PUBLIC = (
    "127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "192.0.0.192", "168.63.129.16", "::", "::1", "fe80::1",
    "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
    "2001:0:7f00:1::1",
)
# fmt: on


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_is_public__not_this_machine_nor_its_network(address: str) -> None:
    assert not web.is_public(ip_address(address))


def test_fetch__connects_to_the_checked_address_under_the_hosts_name(server: Server) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    url = server.url("/image", "bücher.example")
    assert web.fetch(url, 100, resolve, is_loopback) == b"image"
    assert asked == ["xn--bcher-kva.example"]
    assert server.asked == [("/image", f"xn--bcher-kva.example:{server.server_port}")]


def test_fetch__quotes_what_a_request_line_can_not_hold(server: Server) -> None:
    assert fetch(server.url("/a bü")) == fetch(server.url("/a%20b%C3%BC")) == b"quoted"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0"])
def test_fetch__refuses_this_machine_however_it_is_spelled(server: Server, host: str) -> None:
    reject = refusal(server.url("/image", host))
    assert reject.code is RejectCode.REFUSED
    assert "no public address" in reject.message
    assert server.asked == []


def test_fetch__refuses_a_host_of_which_any_address_is_private(server: Server) -> None:
    def resolve(host: str, port: int) -> list[str]:
        return ["8.8.8.8", "10.0.0.1"]

    assert refusal(server.url("/image", "example.com"), resolve=resolve).code is RejectCode.REFUSED


def test_fetch__tries_a_hosts_addresses_in_turn(server: Server) -> None:
    def resolve(host: str, port: int) -> list[str]:
        return ["127.77.0.1", "127.0.0.1"]  # the server listens at the second alone

    assert web.fetch(server.url("/image", "example.com"), 100, resolve, is_loopback) == b"image"


@pytest.mark.parametrize(
    ("path", "data"),
    [("/to-image", b"image"), ("/to-unicode", b"quoted"), ("/step5", b"arrived")],
)
def test_fetch__follows_redirects(server: Server, path: str, data: bytes) -> None:
    assert fetch(server.url(path)) == data


def test_fetch__gives_up_after_five_redirects(server: Server) -> None:
    for path in ("/loop", "/step6"):
        server.asked.clear()
        reject = refusal(server.url(path), is_allowed=is_loopback)
        assert (reject.code, len(server.asked)) == (RejectCode.REFUSED, 6)
        assert "at most 5 redirects" in reject.message


@pytest.mark.parametrize(
    "path", ["/to-metadata", "/to-file", "/to-ftp", "/to-user", "/to-nonsense", "/no-location", "/not-modified", "/bad"]
)
def test_fetch__refuses_for_good(server: Server, path: str) -> None:
    reject = refusal(server.url(path), is_allowed=is_loopback)
    assert reject.code is RejectCode.REFUSED
    assert "geheim" not in reject.message
    assert [asked for asked, _ in server.asked] == [path]


def test_fetch__checks_the_address_of_a_redirects_host(server: Server) -> None:
    def resolve(host: str, port: int) -> list[str]:
        return ["10.0.0.1"] if host == "inside.example" else ["127.0.0.1"]

    reject = refusal(server.url("/to-inside"), resolve=resolve, is_allowed=is_loopback)
    assert reject.message == "http://inside.example/image is at 10.0.0.1, which is no public address."


@pytest.mark.parametrize("path", ["/none", "/gone"])
def test_fetch__missing(server: Server, path: str) -> None:
    assert refusal(server.url(path), is_allowed=is_loopback).code is RejectCode.MISSING
    assert len(server.asked) == 1


def test_addresses__no_such_host_while_others_are_found() -> None:
    with pytest.raises(ImageReject) as caught:
        web.addresses("no such host", 80, known_host="localhost")
    assert caught.value.code is RejectCode.MISSING


def test_addresses__no_host_at_all_is_no_network() -> None:
    with pytest.raises(OSError, match=r"neither first\.invalid nor second\.invalid: is there a network") as caught:
        web.addresses("first.invalid", 80, known_host="second.invalid")
    assert storage.may_pass(caught.value)


@pytest.mark.parametrize(
    "url", ["http://", "http:///a", "http://[x", "http://a:99999/", "http://a..b/", "http://a\0b/"]
)
def test_fetch__refuses_what_is_no_url(url: str) -> None:
    assert refusal(url, is_allowed=is_loopback).code is RejectCode.REFUSED


def test_fetch__refuses_user_info(server: Server) -> None:
    reject = refusal(server.url("/image", "user:geheim@127.0.0.1"), is_allowed=is_loopback)
    assert reject.code is RejectCode.REFUSED
    assert "geheim" not in reject.message
    assert server.asked == []


def test_fetch__reads_no_more_than_a_byte_too_many(server: Server) -> None:
    assert len(fetch(server.url("/long"), 100)) == 101
    assert len(fetch(server.url("/long"), 4_999_999)) == len(fetch(server.url("/long"), 10**7)) == 5_000_000
    assert fetch(server.url("/image"), 5) == b"image"


@pytest.mark.parametrize(
    ("path", "requests", "error"),
    [
        ("/broken", 4, "answers 500"),
        ("/cut", 4, "IncompleteRead"),
        ("/garbage", 4, "BadStatusLine"),
        ("/denied", 1, "answers 403"),
        ("/to-query", 1 + 4, "answers 500"),
    ],
)
def test_fetch__trouble_that_may_pass(server: Server, path: str, requests: int, error: str) -> None:
    with pytest.raises(OSError, match=error) as caught:
        fetch(server.url(path))
    assert len(server.asked) == requests
    assert isinstance(caught.value, PermissionError) == (path == "/denied")
    assert "geheim" not in str(caught.value)


def test_fetch__waits_for_a_busy_server(server: Server) -> None:
    assert fetch(server.url("/busy-once")) == b"at last"


def test_fetch__an_answer_without_end(server: Server) -> None:
    with pytest.raises(TimeoutError, match=r"No whole answer within 0\.1 s"):
        web.fetch(server.url("/drip"), 10**9, is_allowed=is_loopback, answer_s=0.1)


def test_fetch__verifies_the_certificate_for_the_hosts_name(server: Server, tmp_path: Path) -> None:
    write_certificate(tmp_path / "key.pem", tmp_path / "certificate.pem", "images.example")
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    context.sni_callback = lambda connection, name, context: names.append(name)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url("/image", "images.example").replace("http:", "https:")
    reject = refusal(url, resolve=lambda host, port: ["127.0.0.1"], is_allowed=is_loopback)
    assert reject.code is RejectCode.REFUSED
    assert "certificate" in reject.message
    assert names == ["images.example"]
    assert server.asked == []


def write_certificate(key_path: Path, path: Path, host: str) -> None:
    """Write a certificate that is signed by itself, and its key."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    begin = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
