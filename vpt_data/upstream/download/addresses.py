"""Which addresses may be asked: https, and no private network that the user has not named.

Plain http is for a server on this very machine only (a mirror of one's own, the tests).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

from vpt_data.errors import RawError, UsageError

Number = ipaddress.IPv4Address | ipaddress.IPv6Address


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
    host = host_of(url)
    return host == "localhost" or any(number.is_loopback for number in _numbers(host))


def host_of(url: str) -> str:
    """The host of an address, in lower case."""
    return urlsplit(url).hostname or ""


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for an address (HTTPS_PROXY, ALL_PROXY, NO_PROXY); none for this machine."""
    import urllib.request  # brings http and email, which a build has no use for

    proxies = urllib.request.getproxies()
    found = proxies.get(urlsplit(url).scheme) or proxies.get("all")
    if not found or is_loopback(url) or urllib.request.proxy_bypass(urlsplit(url).netloc):
        return None
    return found if "://" in found else f"http://{found}"


def resolved(origin: str, url: str, private: Collection[str], proxied: bool = False) -> list[Number]:
    """The numbers to connect to for `url`, which was asked for as `origin` or is a redirect of it; each is checked.

    The caller connects to these numbers and resolves nothing again: a name server could give another answer.
    With `proxied` there are none, since the proxy resolves names; a host that is written as a number is checked.
    Raises RawError for a redirect that is not https, and for a private address whose host is not in `private`;
    socket.gaierror where the name is not known.
    """
    host, redirected = host_of(url), url != origin
    trusted = host in private and (not redirected or host_of(origin) in private)
    if redirected and not (trusted and is_loopback(url)) and urlsplit(url).scheme != "https":
        raise RawError(f"{origin}: redirects to {url}, which is not https; expected the file.")
    numbers = _numbers(host) or ([] if proxied else _looked_up(host))
    if trusted or all(number.is_global for number in numbers):
        return [] if proxied else numbers
    if redirected:
        raise RawError(f"{origin}: redirects to {url}, a private address; expected the file.")
    number = next(number for number in numbers if not number.is_global)
    raise RawError(
        f"{url}: {host} is at the private address {number}; if it is a mirror of yours, give --private-host {host}."
    )


def _numbers(host: str) -> list[Number]:
    """The host if it is written as a number."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return []
    return [getattr(found, "ipv4_mapped", None) or found]


def _looked_up(host: str) -> list[Number]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [number for entry in found for number in _numbers(str(entry[4][0]).partition("%")[0])]
