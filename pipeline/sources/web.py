"""Fetch an image from a public web server: never from this network, never more than asked for, never without end.

A list of addresses from elsewhere can point anywhere: at the cloud's metadata service, at a printer, at this machine.
So every host is resolved once, all its addresses must be public, and the connection goes to the address that was
checked, under the host's own name (Host header, SNI, certificate): a second look-up could answer otherwise (DNS
rebinding). Redirects are followed by hand and checked alike. Proxies of the environment are not used, since a proxy
would do the resolving.

What becomes of each answer that is no image stands in `pipeline.failures`.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from pipeline.errors import ImageReject, RejectCode
from pipeline.failures import Seam, Verdict, find, of_status
from pipeline.storage import redact, retried

Address = IPv4Address | IPv6Address
#: Returns the addresses of a host and port, as text.
Resolve = Callable[[str, int], Sequence[str]]

MAX_REDIRECTS = 5
#: Longest time for one answer in all, so that no server can keep a process for ever.
ANSWER_S = 300.0
#: To connect; between two pieces of an answer.
_CONNECT_S, _READ_S = 10.0, 30.0
_PIECE_BYTES = 1 << 20
_HEADERS = {
    "User-Agent": "vision-embedding-pipeline",
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
_REDIRECTS = (301, 302, 303, 307, 308)
#: A host that exists for whoever can look up public names at all: without one of these there is no internet.
_KNOWN_HOST = "a.root-servers.net"
# Public by their numbers, but the metadata services of Oracle Cloud and Azure.
_METADATA = (ip_network("192.0.0.0/24"), ip_network("168.63.129.16/32"))
# What may stand in a path or query as it is; "%" since most URLs are encoded already.
_URL_CHARACTERS = "/%:@!$&'()*+,;=~-._?"


def is_public(address: Address) -> bool:
    """Return whether an address is one of the public internet."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return is_public(address.ipv4_mapped)
        if address.sixtofour or address.teredo or address.is_site_local:  # tunnels lead to an IPv4 address inside
            return False
    special = address.is_multicast or address.is_reserved or address.is_unspecified
    special = special or address.is_loopback or address.is_link_local or any(address in net for net in _METADATA)
    return address.is_global and not special


def addresses(host: str, port: int, known_host: str = _KNOWN_HOST) -> list[str]:
    """Resolve a host.

    Args:
        host: Its name or address.
        port: Its port.
        known_host: A host that is looked up too before another is said not to exist: a name server that sees no public
            names says so of them all.

    Raises:
        ImageReject: There is no such host.
        OSError: Nobody can tell now.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        failure = find(error, Seam.WEB)
        if failure.verdict is not Verdict.REJECT or failure.code is None:
            raise
        with contextlib.suppress(socket.gaierror):
            socket.getaddrinfo(known_host, port, type=socket.SOCK_STREAM)
            raise ImageReject("read", failure.code, f"There is no host {host}.") from None
        reason = f"No host is found, neither {host} nor {known_host}: is there a network?"
        raise OSError(errno.EHOSTUNREACH, reason) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def fetch(
    url: str,
    max_bytes: int,
    resolve: Resolve = addresses,
    is_allowed: Callable[[Address], bool] = is_public,
    answer_s: float = ANSWER_S,
) -> bytes:
    """Return what a web server has under a URL, but no more than ``max_bytes`` + 1 bytes of it.

    Args:
        url: An ``http://`` or ``https://`` URL.
        max_bytes: Longest image (bytes).
        resolve: Finds a host's addresses.
        is_allowed: Whether an address may be connected to; a host is refused unless all of its are allowed.
        answer_s: Longest time (seconds) for one answer; there may be several, of redirects and of attempts.

    Raises:
        ImageReject: There is no such image, or it must not or can't ever be fetched.
        OSError: It can't be had now, after several attempts.
    """
    target = url
    for _ in range(MAX_REDIRECTS + 1):
        answer = _get(target, max_bytes, resolve, is_allowed, answer_s)
        if isinstance(answer, bytes):
            return answer
        try:
            target = urljoin(target, answer)
        except ValueError:
            raise _refused(f"{redact(target)} redirects to what is no URL.") from None
    raise _refused(f"Expected at most {MAX_REDIRECTS} redirects, got more, the last to {redact(target)}.")


@retried
def _get(
    url: str, max_bytes: int, resolve: Resolve, is_allowed: Callable[[Address], bool], answer_s: float
) -> bytes | str:
    """Return what is under a URL, or where it redirects to."""
    parts, host, port = _split(url)
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), _URL_CHARACTERS)
    found = resolve(host, port)
    for text in found:
        if not is_allowed(ip_address(text)):
            raise _refused(f"{redact(url)} is at {text}, which is no public address.")
    with _connected(parts, host, port, found, answer_s) as connection, _as_os_errors(url):
        connection.request("GET", path, headers=_HEADERS)
        with connection.getresponse() as response:
            if response.status in _REDIRECTS and (location := response.getheader("Location")):
                return quote(location.encode("latin-1"), f"{_URL_CHARACTERS}#[]")
            _check(response.status, url)
            return _body(response, max_bytes)


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    data = bytearray()
    while len(data) <= max_bytes and (piece := response.read(min(_PIECE_BYTES, max_bytes + 1 - len(data)))):
        data += piece
    if len(data) <= max_bytes and response.length:  # http.client leaves it to its caller to notice
        raise http.client.IncompleteRead(bytes(data), response.length)
    return bytes(data)


def _split(url: str) -> tuple[SplitResult, str, int]:
    """Return a URL's parts, its host in ASCII, and its port."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("ascii" if ":" in (parts.hostname or "") else "idna").decode()
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # UnicodeError is one, for a host that has no place in the DNS
        raise _refused(f"{redact(url)} is no valid URL.") from None
    if parts.scheme not in ("http", "https"):
        raise _refused(f"Expected an http:// or https:// URL, got one with {parts.scheme or 'no scheme'}.")
    if not host or "@" in parts.netloc or any(character <= " " or character == "\x7f" for character in host):
        raise _refused(f"Expected a URL with a host and without user info, got {redact(url)}.")
    return parts, host, port


@contextlib.contextmanager
def _connected(
    parts: SplitResult, host: str, port: int, found: Sequence[str], answer_s: float
) -> Iterator[http.client.HTTPConnection]:
    """Connect to the first of the addresses that answers, and hang up at the end or when the time is over."""
    is_over = threading.Event()
    where, is_tls = redact(parts.geturl()), parts.scheme == "https"
    kind = partial(http.client.HTTPSConnection, context=_tls()) if is_tls else http.client.HTTPConnection
    connection = kind(host, port)
    connection.auto_open = 0  # it must never look the host up by itself
    sock = _dial(where, found, port)
    try:
        if is_tls:
            sock = _tls().wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        if find(error, Seam.WEB).verdict is Verdict.REJECT:
            raise _refused(f"The certificate of {where} is not valid: {error.verify_message}.") from None
        raise
    except BaseException:
        sock.close()
        raise
    connection.sock = sock

    def hang_up() -> None:
        is_over.set()
        with contextlib.suppress(OSError):  # the plain socket's method: SSLSocket's own pulls the rug from under read()
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(answer_s, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield connection
    finally:
        timer.cancel()
        connection.close()
        if is_over.is_set():  # whatever was read until then looks whole where the server gave no length
            raise TimeoutError(errno.ETIMEDOUT, f"No whole answer within {answer_s:g} s", where)


def _dial(where: str, found: Sequence[str], port: int) -> socket.socket:
    trouble: OSError = OSError(errno.EHOSTUNREACH, "The host has no address", where)
    for text in found:
        try:
            sock = socket.create_connection((text, port), _CONNECT_S)
        except OSError as error:
            trouble = error
            continue
        sock.settimeout(_READ_S)
        return sock
    raise trouble


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _check(status: int, url: str) -> None:
    """Raise what an answer that is no image means."""
    failure, where = of_status(status, Seam.WEB), redact(url)
    if failure is None:
        return
    if failure.code is not None:
        raise ImageReject("read", failure.code, f"{where} answers {status}: {failure.what}.")
    raise OSError(failure.errnos[0], f"The server answers {status}: {failure.what}", where)


@contextlib.contextmanager
def _as_os_errors(url: str) -> Iterator[None]:
    """Turn what http.client raises into `OSError`; its messages quote what the server sent, and are dropped."""
    try:
        yield
    except http.client.HTTPException as error:
        raise OSError(errno.EIO, f"Broken answer: {type(error).__name__}", redact(url)) from None


def _refused(message: str) -> ImageReject:
    return ImageReject("read", RejectCode.REFUSED, message)
