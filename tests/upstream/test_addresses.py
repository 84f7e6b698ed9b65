"""Which addresses a download asks: names that stand for private ones, names that change their mind, proxies, TLS."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers.fetching import FILE, ROWS, Desk, Fetch

from vpt_data.errors import RawError
from vpt_data.upstream.download import http
from vpt_data.upstream.download.addresses import proxy_of, resolved
from vpt_data.upstream.download.http import Patience

#: What makes an address of a number.
NUMBERS = socket.getaddrinfo


class Names:
    """A name server whose answer to each look-up of a name is the next one; `asked` counts the look-ups."""

    def __init__(self, **answers: list[str]) -> None:
        self.answers, self.asked = answers, 0

    def __call__(self, host: str, *how: Any, **more: Any) -> list[Any]:
        if host[0].isdigit():
            return NUMBERS(host, *how, **more)
        self.asked += 1
        left = self.answers[host.partition(".")[0]]
        number = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (number, 0))]


def one_try(url: str, folder: Path, private: set[str]) -> http.Got:
    patience = Patience(tries=1, timeout=5)
    return http.fetch(url, folder / "rows.jsonl.part", "rows.jsonl", None, None, patience=patience, private=private)


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "127.0.0.1", "[::1]", "[::ffff:10.0.0.1]"])
def test_a_first_address_in_a_private_network_is_refused(tmp_path: Path, host: str) -> None:
    number = host.strip("[]").removeprefix("::ffff:")
    name = host.strip("[]")
    with pytest.raises(RawError) as refused:
        one_try(f"https://{host}/rows.jsonl", tmp_path, set())
    assert str(refused.value) == (
        f"https://{host}/rows.jsonl: {name} is at the private address {number}; if it is a mirror of yours, give "
        f"--private-host {name}."
    )


def test_a_name_that_stands_for_a_private_address_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names(mirror=["192.168.1.7"]))
    desk.write(FILE, top='base = "https://mirror.example/"')
    assert desk.fails() == (
        "https://mirror.example/rows.jsonl: mirror.example is at the private address 192.168.1.7; if it is a mirror of "
        "yours, give --private-host mirror.example."
    )


def test_this_machine_has_to_be_named_as_well(fetch: Fetch) -> None:
    fetch.serve(ROWS)
    fetch.private.clear()
    assert fetch.fails().endswith(
        "127.0.0.1 is at the private address 127.0.0.1; if it is a mirror of yours, give --private-host 127.0.0.1."
    )
    assert fetch.waits == []


def test_the_connection_goes_to_the_address_that_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that says a public address first, and this machine to whoever asks again."""
    names, connected = Names(rebind=["93.184.215.14", "127.0.0.1"]), []

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError("nobody")

    monkeypatch.setattr(socket, "getaddrinfo", names)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(RawError, match="cannot be reached"):
        one_try("https://rebind.example/rows.jsonl", tmp_path, set())
    assert (connected, names.asked) == ([("93.184.215.14", 443)], 1)


def test_a_redirect_to_a_named_host_comes_from_a_named_host() -> None:
    """The web may not use what the user has opened for a mirror."""
    with pytest.raises(RawError, match=r"redirects to https://10\.0\.0\.1/x, a private address; expected the file\.$"):
        resolved("https://93.184.215.14/x", "https://10.0.0.1/x", {"10.0.0.1"})
    both = {"10.0.0.1", "10.0.0.2"}
    assert resolved("https://10.0.0.2/x", "https://10.0.0.1/x", both) == [ipaddress.ip_address("10.0.0.1")]


def test_a_proxy_resolves_names_and_numbers_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "near.example")
    assert proxy_of("https://far.example/x") == "http://proxy.example:3128"
    assert proxy_of("https://near.example/x") is None
    assert proxy_of("https://127.0.0.1/x") is None
    assert resolved("https://far.example/x", "https://far.example/x", (), proxied=True) == []
    with pytest.raises(RawError, match="private address"):
        resolved("https://10.0.0.1/x", "https://10.0.0.1/x", (), proxied=True)


# Certificates -------------------------------------------------------------------------------------------------


class _Rows(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        self.server.hosts.append(self.headers["Host"])  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(ROWS)))
        self.end_headers()
        self.wfile.write(ROWS)


def certificate(folder: Path, name: str) -> Path:
    """A key and a certificate that vouches for itself, in one file."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(plain + made.public_bytes(pem))
    return path


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    """An https server for mirror.example on this machine, whose certificate SSL_CERT_FILE trusts."""
    pem = certificate(tmp_path, "mirror.example")
    server = HTTPServer(("127.0.0.1", 0), _Rows)
    server.hosts = []  # type: ignore[attr-defined]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setattr(socket, "getaddrinfo", Names(mirror=["127.0.0.1"], other=["127.0.0.1"]))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_certificate_is_for_the_name_and_not_for_the_number(tls: HTTPServer, tmp_path: Path) -> None:
    port = tls.server_address[1]
    assert one_try(f"https://mirror.example:{port}/rows.jsonl", tmp_path, {"mirror.example"}).size == len(ROWS)
    assert tls.hosts == [f"mirror.example:{port}"]  # type: ignore[attr-defined]
    (tmp_path / "rows.jsonl.part").unlink()
    with pytest.raises(RawError, match="has no certificate that this machine trusts"):
        one_try(f"https://other.example:{port}/rows.jsonl", tmp_path, {"other.example"})
