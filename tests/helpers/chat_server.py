"""A server with the interface of OpenAI that plays what a test wrote down for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Act = Callable[["Handler"], None]


def says(text: str | None, ended: str = "stop", tokens: int | None = None) -> Act:
    """A reply as it should be, with this text."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": ended}
    return body(json.dumps({"choices": [choice], "usage": {"completion_tokens": tokens}}))


def replies(choose: Callable[[dict[str, Any]], str]) -> Act:
    """A reply that depends on the request."""
    return lambda handler: says(choose(handler.asked))(handler)


def body(text: str, kind: str = "application/json", length: int | None = None) -> Act:
    """Status 200 with any body; `length` is what its header promises."""

    def act(handler: Handler) -> None:
        content = text.encode(errors="surrogateescape")
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.end_headers()
        handler.wfile.write(content)

    return act


def status(code: int, **headers: str) -> Act:
    """An error of HTTP."""

    def act(handler: Handler) -> None:
        content = json.dumps({"error": {"message": f"status {code}"}}).encode()
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return act


def silence(handler: Handler) -> None:
    """Nothing until the server is closed."""
    handler.server.closing.wait()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: ChatServer
    asked: dict[str, Any]

    def do_POST(self) -> None:
        self.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.next_act(self.asked)(self)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Keep stderr of tests empty."""


class ChatServer(ThreadingHTTPServer):
    """Plays the acts in order, then `always`; `asked` are the requests so far."""

    daemon_threads = False

    def __init__(self, *acts: Act, always: Act | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.acts, self.always = list(acts), always or says("score: 1")
        self.asked: list[dict[str, Any]] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def next_act(self, asked: dict[str, Any]) -> Act:
        with self._lock:
            self.asked.append(asked)
            return self.acts.pop(0) if self.acts else self.always

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is no error."""

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()
