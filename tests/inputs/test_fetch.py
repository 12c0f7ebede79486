"""URLs: fetched from a server on this machine, and refused where they lead to one."""

import contextlib
import http.server
import socket
import threading
import time

import pytest

from triarch.errors import InvalidInput, LimitExceeded, Offline, UnsafeFile
from triarch.inputs.fetch import fetch


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
        elif self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
        elif self.path == "/lost":
            self.send_response(404)
        else:
            self.send_response(200)
        self.end_headers()
        if self.path == "/slow":
            with contextlib.suppress(OSError):
                for _ in range(50):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
        elif self.path == "/large":
            with contextlib.suppress(OSError):
                for _ in range(100):
                    self.wfile.write(b"x" * 10_000)
        else:
            self.wfile.write(self.path.encode())

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_body_comes_back(server):
    assert fetch(f"{server}/photo?size=3", most=100, private=True) == b"/photo?size=3"


def test_redirects_are_followed(server):
    assert fetch(f"{server}/to?/there", most=100, private=True) == b"/there"


def test_redirects_end(server):
    with pytest.raises(LimitExceeded, match="is redirected over 3 times"):
        fetch(f"{server}/loop", most=100, private=True)


def test_a_redirect_to_a_file_is_refused(server):
    with pytest.raises(InvalidInput, match="not a plain URL"):
        fetch(f"{server}/to?file:///etc/passwd", most=100, private=True)


def test_large_bodies_stop_at_the_limit(server):
    with pytest.raises(LimitExceeded, match="has over 50,000 bytes"):
        fetch(f"{server}/large", most=50_000, private=True)


def test_a_slow_drip_ends(server):
    start = time.monotonic()
    with pytest.raises(Offline, match="does not answer"):
        fetch(f"{server}/slow", most=100, seconds=0.5, private=True)
    assert time.monotonic() - start < 2


def test_what_is_not_there_is_said(server):
    with pytest.raises(InvalidInput, match="answers 404 Not Found"):
        fetch(f"{server}/lost", most=100, private=True)


def test_nobody_listening():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Offline, match="does not answer"):
        fetch(f"http://127.0.0.1:{port}/", most=100, private=True)


HERE = [
    "127.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "0x7f000001",
    "2130706433",
    "169.254.169.254",
    "10.0.0.1",
    "0.0.0.0",
]


@pytest.mark.parametrize("host", HERE)
def test_addresses_of_this_machine_and_its_network_are_refused(host):
    with pytest.raises(UnsafeFile, match="nothing is fetched from there"):
        fetch(f"http://{host}:8000/photo.jpg", most=100)


ODD = ["ftp://host/a", "file:///etc/passwd", "gopher://host/", "http://a\\@b/", "http://user@host/", "http:///a", "x"]


@pytest.mark.parametrize("url", [*ODD, "http://host:port/", "http://host/a b", "http://host/\n", "http://[::1/"])
def test_odd_urls_are_refused(url):
    with pytest.raises(InvalidInput, match=r"is not a plain URL|is no URL"):
        fetch(url, most=100)


def test_ports_of_other_services_are_refused():
    with pytest.raises(UnsafeFile, match="names port 22, which is of another service"):
        fetch("http://host:22/", most=100)
