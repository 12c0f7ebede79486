"""Bytes from a URL, fetched only where someone asks for it, and only from the open internet.

A URL may come from a hostile file or request, so it must not reach what this machine alone can reach: the address of
the host is looked up once, checked, and is the one that is connected to; each redirect is checked in the same way.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from urllib.parse import SplitResult, urljoin, urlsplit

from triarch import limits
from triarch.errors import InvalidInput, LimitExceeded, Offline, TriarchError, UnsafeFile, show

PORTS = {"http": 80, "https": 443}
MOVED = (301, 302, 303, 307, 308)
CHUNK = 1 << 16


def fetch(url: str, *, most: int, seconds: float = limits.FETCH_SECONDS, private: bool = False) -> bytes:
    """What a URL of http or https leads to, `most` bytes of it at most, within `seconds`.

    `private` lets it lead to addresses of this machine and its network, too. Raises InvalidInput for a URL that cannot
    be read, UnsafeFile for one that leads to such an address, LimitExceeded, and Offline where nothing answers.
    """
    end = time.monotonic() + seconds
    for _ in range(limits.FETCH_REDIRECTS + 1):
        parts = _parsed(url)
        try:
            moved, data = _get(parts, _address(parts, private), most, end)
        except TriarchError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise Offline(f"{show(url)} does not answer ({show(error) or type(error).__name__}); try again") from None
        if moved is None:
            return data
        url = urljoin(url, moved)
    raise LimitExceeded(f"{show(url)} is redirected over {limits.FETCH_REDIRECTS} times; give the address at the end")


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidInput(f"{show(url)!r} is no URL; wanted https://host/path") from None
    plain = url.isascii() and url.isprintable() and "\\" not in url and " " not in url
    if not plain or parts.scheme not in PORTS or not parts.hostname or parts.username is not None:
        raise InvalidInput(f"{show(url)!r} is not a plain URL; wanted https://host/path")
    if port not in (None, *PORTS.values()) and port is not None and port < 1024:
        raise UnsafeFile(f"{show(url)} names port {port}, which is of another service; use 80, 443 or one above 1023")
    return parts


def _address(parts: SplitResult, private: bool) -> tuple[str, int]:
    """The first address of the host. Raises UnsafeFile unless all of them are of the open internet."""
    host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not private and not all(_is_public(address) for address in found):
        raise UnsafeFile(f"{show(host)} is an address of this machine or its network; nothing is fetched from there")
    return found[0], port


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_global and not parsed.is_multicast


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that has been checked; the host's name is used for TLS and in the request."""

    def __init__(self, parts: SplitResult, address: tuple[str, int], seconds: float):
        super().__init__(str(parts.hostname), address[1], timeout=seconds)
        self.address, self.secure = address, parts.scheme == "https"
        self.timer = threading.Timer(seconds, self.stop)  # a timeout of the socket starts anew with each byte

    def connect(self) -> None:
        self.timer.start()
        self.sock = self.plain = socket.create_connection(self.address, self.timeout)
        if self.secure:
            self.sock = self.plain = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)

    def stop(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # it is closed, or was never open
            self.plain.shutdown(socket.SHUT_RDWR)


def _get(parts: SplitResult, address: tuple[str, int], most: int, end: float) -> tuple[str | None, bytes]:
    """Where it has moved to, if it has, and the body."""
    where, connection = show(parts.geturl()), _Pinned(parts, address, max(end - time.monotonic(), 0.1))
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        answer = connection.getresponse()
        if answer.status in MOVED and (moved := answer.getheader("Location")):
            return moved, b""
        if answer.status != 200:
            raise InvalidInput(f"{where} answers {answer.status} {show(answer.reason)}; check the address")
        body = bytearray()
        while chunk := answer.read1(CHUNK):
            body += chunk
            if len(body) > most:
                raise LimitExceeded(f"{where} has over {most:,} bytes; give a smaller file")
        if time.monotonic() >= end or answer.length:
            raise TimeoutError("the answer was cut off")
        return None, bytes(body)
    finally:
        connection.timer.cancel()
        connection.close()
