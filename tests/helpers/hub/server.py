"""The test Hub over HTTP."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs

from helpers.hub import accounts, discussions, reading, writing
from helpers.hub.answers import Answer, Asked, Refused, as_json
from helpers.hub.faults import Faults, Seen, Wrong, refusal
from helpers.hub.repositories import Blob, Commit, Hub, Repository

_REPO = r"/api/(datasets|models)/([^/]+/[^/]+)"
_LFS = r"/(datasets)/([^/]+/[^/]+)\.git/info/lfs/objects"
_LARGE = r"/large/(datasets)/([^/]+/[^/]+)/(\w+)"
Route = Callable[..., Answer]


def routes(page: int) -> tuple[tuple[str, str, Route], ...]:
    """Methods, path and what answers; the groups of the path are its arguments. `page` entries are in a list."""
    tree: Route = functools.partial(reading.tree, page=page)
    return (
        ("GET", r"/api/whoami-v2", reading.whoami),
        ("POST", r"/api/repos/create", writing.create),
        ("POST", r"/api/validate-yaml", writing.validate_yaml),
        ("GET", _REPO, reading.info),
        ("GET", rf"{_REPO}/revision/([^/]+)", reading.info),
        ("GET", rf"{_REPO}/auth-check(?:/(write))?", reading.authorization),
        ("GET", rf"{_REPO}/tree/([^/]+)(?:/(.*))?", tree),
        ("POST", rf"{_REPO}/paths-info/([^/]+)", reading.paths_info),
        ("GET", rf"{_REPO}/refs", reading.refs),
        ("GET", rf"{_REPO}/commits/([^/]+)", reading.commits),
        ("GET", rf"{_REPO}/discussions", discussions.listed),
        ("POST", rf"{_REPO}/discussions", discussions.create),
        ("GET", rf"{_REPO}/discussions/(\d+)", discussions.details),
        ("POST", rf"{_REPO}/discussions/(\d+)/(merge|status|title|comment)", discussions.change),
        ("PUT", rf"{_REPO}/settings", writing.settings),
        ("POST DELETE", rf"{_REPO}/branch/([^/]+)", writing.branch),
        ("POST DELETE", rf"{_REPO}/tag/([^/]+)", writing.tag),
        ("POST", rf"{_REPO}/preupload/([^/]+)", writing.preupload),
        ("GET", rf"{_REPO}/xet-(read|write)-token/([^/]+)", writing.xet_token),
        ("POST", rf"{_REPO}/commit/([^/]+)", writing.commit),
        ("POST", rf"{_LFS}/batch", writing.lfs_batch),
        ("POST", rf"{_LFS}/verify", writing.verify_large),
        ("PUT", rf"{_LARGE}(?:/(\d+))?", writing.put_large),
        ("POST", rf"{_LARGE}/complete", writing.complete_large),
        ("HEAD GET", r"/(datasets)/([^/]+/[^/]+)/(?:resolve|raw)/([^/]+)/(.+)", reading.resolve),
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr; the log has it."""

    def _one(self) -> None:
        path, _, query = self.path.partition("?")
        seen = self.server.of.faults.seen(self.command, path, query) if self.server.counted else Seen(0, "", "")
        wrong = seen.wrong
        body = b"" if wrong in {Wrong.DROP, Wrong.KILL} else self._body(half=wrong is not None and wrong.in_body)
        seen.received = len(body or b"")
        if body is None or (wrong is not None and wrong.without_effect):
            self._hang_up(wrong)
            return
        answer = self.server.of.answer(self._asked(path, query, body), wrong)
        seen.status = answer.status
        if wrong is not None and wrong.after_effect:
            self._hang_up(wrong)
        else:
            self._send(answer, seen)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _one

    def _asked(self, path: str, query: str, body: bytes) -> Asked:
        found = parse_qs(query, keep_blank_values=True)
        # `Headers.get` of the library does not mind capitals, a dict would.
        return Asked(self.command, path, found, self.headers, body, self.server.url)  # type: ignore[arg-type]

    def _body(self, half: bool) -> bytes | None:
        """The body, or half of it; None where the client has gone in the middle of it."""
        if self.headers["Transfer-Encoding"] == "chunked":
            return self._chunks(half)
        size = int(self.headers["Content-Length"] or 0)
        body = self.rfile.read(size // 2 if half else size)
        return body if half or len(body) == size else None

    def _chunks(self, half: bool) -> bytes | None:
        parts = []
        while not (half and parts):
            line = self.rfile.readline()
            if not line:
                return None
            parts.append(self.rfile.read(int(line, 16)))
            self.rfile.readline()
            if not parts[-1]:
                break
        return b"".join(parts)

    def _hang_up(self, wrong: Wrong | None) -> None:
        if wrong is not None and wrong.kills:
            self.server.of.kill()
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client may have gone
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, answer: Answer, seen: Seen) -> None:
        self.send_response(answer.status)
        for name, text in answer.headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
        self.end_headers()
        cut = seen.wrong is Wrong.DROP_IN_ANSWER
        body = b"" if self.command == "HEAD" else answer.body[: len(answer.body) // 2 if cut else None]
        self.wfile.write(body)
        self.wfile.flush()
        seen.sent = len(body)
        if cut:
            self._hang_up(Wrong.DROP_IN_ANSWER)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, of: HubServer, counted: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.of, self.counted = of, counted
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no finding; what a route does wrong is an answer 500 and in `broken`."""


class HubServer:
    """The server, running while the block lasts.

    url          the endpoint whose requests are in the log and meet faults
    quiet_url    the same Hub for those who only look on
    broken       what routes have raised that is no answer: mistakes of this server
    victim       the process that a fault kills
    """

    def __init__(self, part_size: int | None = None, xet: Path | None = None, page: int = 1000) -> None:
        self.hub, self.faults, self.tokens = Hub(part_size, xet), Faults(), accounts.tokens()
        self.broken: list[str] = []
        self.victim: int | None = None
        self._routes = routes(page)
        self._lock = threading.RLock()

    def __enter__(self) -> HubServer:
        self._servers = [_Server(self, counted) for counted in (True, False)]
        self.url, self.quiet_url = (server.url for server in self._servers)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def answer(self, asked: Asked, wrong: Wrong | None = None) -> Answer:
        """The answer to a request; one at a time, so that each takes effect in one step."""
        with self._lock:
            if wrong is Wrong.STALE:
                self.meddle(asked.path)
            try:
                return (refusal(wrong) if wrong else None) or self._routed(asked)
            except Refused as refused:
                return refused.answer
            except (LookupError, ValueError, TypeError, AssertionError) as error:
                self.broken.append(f"{asked.method} {asked.path}: {error!r}")
                return as_json({"error": "the test server is broken"}, 500)

    def _routed(self, asked: Asked) -> Answer:
        asked.token = self._token(asked)
        for methods, pattern, route in self._routes:
            if asked.method in methods.split() and (found := re.fullmatch(pattern, asked.path)):
                return route(self.hub, asked, *(part for part in found.groups() if part is not None))
        raise Refused(404, "Sorry, we can't find the page you are looking for.")

    def _token(self, asked: Asked) -> accounts.Token | None:
        kind, _, secret = (asked.headers.get("Authorization") or "").partition(" ")
        if not secret or kind == "Basic":
            return None
        found = self.tokens.get(secret)
        if found is None or found.expired:
            raise Refused(401, "Invalid credentials in Authorization header")
        return found

    def kill(self) -> None:
        """Kill the process that talks to the server."""
        if self.victim is not None:
            os.kill(self.victim, signal.SIGKILL)

    # What tests look at and do ---------------------------------------------------------------------------------

    def repository(self, name: str) -> Repository:
        """A data set."""
        return self.hub.repository(name)

    def contents(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Every file of a data set with its bytes."""
        found = self.repository(name)
        return {path: found.bytes_of(blob) for path, blob in sorted(found.at(revision).files.items())}

    def copy(self, name: str, new: str) -> Repository:
        """The same repository under another name, which goes its own way."""
        found = self.repository(name)
        made = dataclasses.replace(
            found, name=new, commits=dict(found.commits), refs=dict(found.refs), objects=dict(found.objects), parts={},
            discussions=[dataclasses.replace(one) for one in found.discussions], members=set(found.members),
        )  # fmt: skip
        self.hub.repositories[found.kind, new] = made
        return made

    def filled(self, name: str, folder: Path) -> Commit:
        """A new data set with all files of a folder."""
        self.hub.create(name)
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return self.commit(name, {path.relative_to(folder).as_posix(): path.read_bytes() for path in files})

    def asked(self, path: str) -> list[Seen]:
        """The requests for a path so far."""
        return [seen for seen in self.faults.log if seen.path == path]

    def commit(self, name: str, files: Mapping[str, bytes | None], title: str = "by hand") -> Commit:
        """A commit of somebody else on the main branch: files to add or, with None, to remove."""
        with self._lock:
            found = self.repository(name)
            now = dict(found.at("main").files) | {
                path: self._blob(found, path, data) for path, data in files.items() if data is not None
            }
            kept = {path: blob for path, blob in now.items() if files.get(path, b"") is not None}
            return found.commit("refs/heads/main", kept, title, author="somebody")

    def _blob(self, found: Repository, path: str, data: bytes) -> Blob:
        if not found.is_large(path, len(data), data[:512]):
            return Blob(len(data), data)
        name = hashlib.sha256(data).hexdigest()
        found.objects[name] = data
        return Blob(len(data), sha256=name)

    def know(self, path: Path) -> None:
        """xet's name for a file that a client keeps in xet, so that it can be downloaded."""
        import hf_xet

        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.hub.xet_ids[sha256] = hf_xet.hash_files([str(path)])[0].hash

    def meddle(self, path: str) -> None:
        """Somebody else's commit, in the repository that a path is about; it changes only `.gitattributes`."""
        found = re.search(r"datasets/([^/]+/[^/.]+)", path)
        if found is not None and ("dataset", found[1]) in self.hub.repositories:
            before = self.contents(found[1])[".gitattributes"]
            self.commit(found[1], {".gitattributes": before + b"# seen\n"}, "somebody else")
