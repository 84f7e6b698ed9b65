"""Which addresses may be asked: https, and never a private network by way of a redirect.

Plain http is for a server on this very machine only (a mirror of one's own, the tests).
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from vpt_data.errors import RawError, UsageError


def check_url(url: str) -> None:
    """UsageError unless the address is https, or http on this machine, without a password in it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{url!r}: not an address ({error}).") from error
    if parts.scheme not in {"https", "http"} or not host or not url.isprintable():
        raise UsageError(f"{url!r}: not a web address; write https://...")
    if parts.scheme == "http" and not is_loopback(url):
        raise UsageError(f"{url}: plain http can be tampered with on the way; write https://...")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"https://{host}/...: an address with a name or password in it does not belong in a manifest.")


def is_loopback(url: str) -> bool:
    """Whether an address is this very machine, by name or number."""
    host = urlsplit(url).hostname or ""
    return host == "localhost" or any(number.is_loopback for number in _numbers(host))


def check_redirect(origin: str, target: str) -> None:
    """RawError unless a redirect from `origin` to `target` is to be followed."""
    parts = urlsplit(target)
    if is_loopback(target) and is_loopback(origin):
        return
    if parts.scheme != "https":
        raise RawError(f"{origin}: redirects to {target}, which is not https; expected the file.")
    host = parts.hostname or ""
    if is_loopback(target) or any(not number.is_global for number in _numbers(host) or _resolved(host)):
        raise RawError(f"{origin}: redirects to {target}, a private address; expected the file.")


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _numbers(host: str) -> list[_Address]:
    """The host if it is written as a number."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return []
    return [getattr(found, "ipv4_mapped", None) or found]


def _resolved(host: str) -> list[_Address]:
    """What the host's name stands for; nothing where only a proxy knows."""
    try:
        told = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [number for entry in told for number in _numbers(str(entry[4][0]).partition("%")[0])]
