"""The page of a whole corpus on 127.0.0.1: rows, filters and sorting as they are asked for, no copy of the corpus.

What can be asked for is a fixed list of paths with numbers, and names that are looked up; no path of a file is ever
taken from a request. Requests for another host or from another origin are refused, so that no web page reads rows.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from vpt_data.errors import UsageError, VptDataError
from vpt_data.inspect.view.browse import Browser, Query
from vpt_data.inspect.view.page import render

_PICTURE: Final = re.compile(r"/picture/(\d{1,7})/(\d{1,9})/(image|view)/(\d{1,4})")
_LARGEST_LIMIT: Final = 200
_SIDES: Final = range(16, 2049)


class Refused(Exception):
    """A request that is not answered: its status and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Server(ThreadingHTTPServer):
    """A server on 127.0.0.1 that browses one corpus; `port` 0 takes any free one."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, browser: Browser, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.browser = browser
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self.page = render(browser.document()).encode()

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is nothing to report; other errors are."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "vpt-data", ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Answer one request."""
        try:
            self._check_sender()
            kind, data = self._answer()
            self._send(HTTPStatus.OK, kind, data)
        except Refused as error:
            self._send(error.status, "application/json", _json({"error": str(error)}))
        except (UsageError, ValueError) as error:  # ValueError: an address that cannot be taken apart
            self._send(HTTPStatus.BAD_REQUEST, "application/json", _json({"error": str(error)}))
        except VptDataError as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "application/json", _json({"error": str(error)}))

    def _check_sender(self) -> None:
        """Refuse a page of another site: its name may point at this machine, or it may ask in its own name."""
        hosts, origin = self.headers.get_all("Host", []), self.headers.get("Origin")
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, f"This server answers for {self.server.address} only.")
        if origin is not None and origin not in {f"http://{host}" for host in self.server.hosts}:
            raise Refused(HTTPStatus.FORBIDDEN, "This server answers its own page only.")
        if self.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise Refused(HTTPStatus.FORBIDDEN, "This server answers its own page only.")

    def _answer(self) -> tuple[str, bytes]:
        asked = urlsplit(self.path)
        fields = parse_qs(asked.query, keep_blank_values=True, max_num_fields=100)
        browser = self.server.browser
        if asked.path == "/":
            return "text/html; charset=utf-8", self.server.page
        if (found := _PICTURE.fullmatch(asked.path)) is not None:
            shard, row, number = (int(found[place]) for place in (1, 2, 4))
            side = _number(fields, "side", 1024, _SIDES)
            data = browser.picture(shard, row, found[3] == "view", number, side)
            return "image/webp", _known(data, "There is no such picture.")
        if asked.path == "/api/rows":
            rows = browser.rows(_query(fields), *_window(fields))
            return "application/json", _json(rows)
        if asked.path == "/api/row":
            wanted = _one(fields, "id")
            return "application/json", _json(_known(browser.row(wanted), f"No row has the id {wanted!r}."))
        if asked.path == "/api/facets":
            return "application/json", _json(browser.facets())
        if asked.path == "/api/dropped":
            take, reason = (fields.get(name, [None])[0] for name in ("take", "reason"))
            return "application/json", _json(browser.dropped(take, reason, *_window(fields)))
        raise Refused(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _send(self, status: HTTPStatus, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        # The page has a policy of its own in it, which names its script and style.
        allowed = "frame-ancestors 'none'" if kind.startswith("text/html") else "default-src 'none'"
        self.send_header("Content-Security-Policy", allowed)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is logged: texts of requests would go to the terminal."""


T = TypeVar("T")


def _known(found: T | None, sentence: str) -> T:
    if found is None:
        raise Refused(HTTPStatus.NOT_FOUND, sentence)
    return found


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


def _number(fields: Mapping[str, list[str]], name: str, default: int, allowed: range) -> int:
    given = fields.get(name, [str(default)])[0]
    if not (given.isascii() and given.isdecimal() and len(given) < 10 and int(given) in allowed):
        raise Refused(
            HTTPStatus.BAD_REQUEST, f"{name} is {given[:20]!r}, expected a number from {allowed[0]} to {allowed[-1]}."
        )
    return int(given)


def _one(fields: Mapping[str, list[str]], name: str) -> str:
    if len(found := fields.get(name, [])) != 1:
        raise Refused(HTTPStatus.BAD_REQUEST, f"Expected one {name}.")
    return found[0]


def _window(fields: Mapping[str, list[str]]) -> tuple[int, int]:
    return _number(fields, "offset", 0, range(10**9)), _number(fields, "limit", 60, range(1, _LARGEST_LIMIT + 1))


def _query(fields: Mapping[str, list[str]]) -> Query:
    known = {"offset", "limit"}
    unknown = fields.keys() - known - set(Query.__struct_fields__)
    if unknown:
        raise Refused(HTTPStatus.BAD_REQUEST, f"Unknown filter {sorted(unknown)[0][:20]!r}.")
    given: dict[str, object] = {name: fields[name][0] for name in ("text", "sort") if name in fields}
    given |= {name: fields[name] for name in Query.FILTERS if name in fields}
    return msgspec.convert({**given, "descending": fields.get("descending", ["0"])[0] == "1"}, Query)
