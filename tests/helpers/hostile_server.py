"""A web server on 127.0.0.1 that does what servers do on bad days, and a log of what it was asked and sent.

`serve(path, first, second, ...)`: the n-th request for a path gets the n-th reply; the last is for all later ones too.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


@dataclass(frozen=True)
class Reply:
    """One answer.

    cut           close the connection after so many bytes of the body
    claim         say this length instead of the true one
    ranges        "honest", "ignored" (200 with everything), "rude" (206 whatever If-Range says), "shifted" (206 with
                  another range than the one asked for)
    unbounded     say no length; the end of the connection is the end of the file
    stall         seconds of silence after `stall_after` bytes
    pace          seconds of silence after each 64 KiB
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = '"one"'
    cut: int | None = None
    claim: int | None = None
    ranges: str = "honest"
    unbounded: bool = False
    stall: float = 0
    stall_after: int = 0
    pace: float = 0


@dataclass
class Seen:
    """One request: what was asked, how it was answered, how many bytes of the body went out."""

    method: str
    path: str
    range: str | None
    if_range: str | None
    status: int = 0
    sent: int = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr; `log` has it."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        seen = Seen(self.command, self.path, self.headers["Range"], self.headers["If-Range"])
        reply = self.server.next_reply(self.path, seen)
        body, status, told = self._range(reply)
        seen.status = status
        self.send_response(status)
        for name, value in (reply.headers | told).items():
            self.send_header(name, value)
        if reply.etag is not None:
            self.send_header("ETag", reply.etag)
        if not reply.unbounded:
            self.send_header("Content-Length", str(len(body) if reply.claim is None else reply.claim))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if with_body:
            self._send(reply, body, seen)

    def _range(self, reply: Reply) -> tuple[bytes, int, dict[str, str]]:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        same = reply.ranges == "rude" or self.headers["If-Range"] in {None, reply.etag}
        if asked is None or reply.status != 200 or reply.ranges == "ignored" or not same:
            return reply.body, reply.status, {}
        start, total = int(asked[1]) + (3 if reply.ranges == "shifted" else 0), len(reply.body)
        if start >= total:
            return b"", 416, {"Content-Range": f"bytes */{total}"}
        end = min(int(asked[2]) + 1, total) if asked[2] else total
        return reply.body[start:end], 206, {"Content-Range": f"bytes {start}-{end - 1}/{total}"}

    def _send(self, reply: Reply, body: bytes, seen: Seen) -> None:
        end = len(body) if reply.cut is None else min(reply.cut, len(body))
        stops = {end, min(reply.stall_after, end)} if reply.stall else {end}
        stops |= set(range(0, end, 65536))
        try:
            for stop in sorted(stops):
                self.wfile.write(body[seen.sent : stop])
                self.wfile.flush()
                seen.sent = stop
                pause = reply.stall if reply.stall and stop == reply.stall_after else reply.pace
                if pause and stop < end:
                    time.sleep(pause)
            if end < len(body):
                self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.close_connection = True  # the client has gone, as some tests want it to


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: dict[str, list[Reply]] = {}
        self.log: list[Seen] = []
        self._lock = threading.Lock()

    def next_reply(self, path: str, seen: Seen) -> Reply:
        with self._lock:
            self.log.append(seen)
            replies = self.replies.get(path) or self.replies.get(path.partition("?")[0])
            if replies is None:
                return Reply(b"no such file", 404, {"X-Error-Code": "EntryNotFound"}, etag=None)
            return replies.pop(0) if len(replies) > 1 else replies[0]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no finding."""


class HostileServer:
    """The server, running while the block lasts."""

    def __enter__(self) -> HostileServer:
        self._server = _Server()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self, path: str, *replies: Reply | bytes) -> str:
        """Answer a path; returns its address."""
        self._server.replies[path] = [reply if isinstance(reply, Reply) else Reply(reply) for reply in replies]
        return f"{self.url}{path}"

    def asked(self, path: str) -> list[Seen]:
        """The requests for a path so far."""
        return [seen for seen in self._server.log if seen.path == path]
